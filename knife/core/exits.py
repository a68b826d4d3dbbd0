"""How a command ends: its exit status and final message.

0 done; 2 user error; 1 the work failed; 130 interrupted; 143 terminated.
"""

import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from knife.core.errors import NotFiniteError, SessionLostError, UserError, WorkFailedError


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised in the main thread, so that cleanup for Ctrl-C also handles it."""


@contextmanager
def exits(interrupted: str = "") -> Iterator[None]:
    """Exit the process with the status and message for whatever exception is raised inside.

    `interrupted` is printed when the user (or the system, with SIGTERM) ends the work early.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    unraisable = sys.unraisablehook
    sys.unraisablehook = _again(unraisable)
    try:
        yield
    except UserError as error:
        say(*(f"error: {line}" for line in error.errors))
        sys.exit(2)
    except WorkFailedError as error:
        first, *others = error.lines
        say(f"error: {first}", *others)
        sys.exit(1)
    except KeyboardInterrupt as error:
        terminated = isinstance(error, Terminated)
        say("", "terminated" if terminated else "interrupted", *filter(None, [interrupted]))
        sys.exit(143 if terminated else 130)
    except (NotFiniteError, SessionLostError) as error:
        say(f"error: {error}")
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output has exited (`knife ls | head -1`); typer ends quietly.
        raise
    except Exception as error:
        message = str(error).strip() or "no message"
        say(f"error: the work failed: {type(error).__name__}: {message}")
        say(f"the full traceback is in {_keep_traceback()}")
        sys.exit(1)
    finally:
        sys.unraisablehook = unraisable
        signal.signal(signal.SIGTERM, before)


def say(*lines: str) -> None:
    """Print lines to stderr, since stdout is for results. A closed stderr is ignored."""
    with suppress(OSError):
        for line in lines:
            print(line, file=sys.stderr, flush=True)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _again(
    unraisable: Callable[["sys.UnraisableHookArgs"], object],
) -> Callable[["sys.UnraisableHookArgs"], object]:
    """Return a hook that resends a signal that arrived while Python ran a destructor.

    An exception raised in a destructor or weak-reference callback only reaches
    `sys.unraisablehook`: Ctrl-C would print a traceback, and the work would continue.
    """

    def hook(found: "sys.UnraisableHookArgs") -> None:
        if not issubclass(found.exc_type, KeyboardInterrupt):
            unraisable(found)
            return
        number = signal.SIGTERM if issubclass(found.exc_type, Terminated) else signal.SIGINT
        # Delayed, because an exception that a signal raises inside this hook is lost as well.
        main = threading.main_thread().ident
        timer = threading.Timer(0.05, signal.pthread_kill, [main, number])
        timer.daemon = True
        timer.start()

    return hook


def _keep_traceback() -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="knife-error-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(traceback.format_exc())
    return file.name
