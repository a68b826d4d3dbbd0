"""How a command ends: exit status and last words.

0 done; 2 the user's input is at fault; 1 the work failed; 130 interrupted; 143 told to end.
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
    """SIGTERM, raised in the main thread: what cleans up after Ctrl-C cleans up after it too."""


@contextmanager
def exits(interrupted: str = "") -> Iterator[None]:
    """End the process with the status and the words that fit what happened inside.

    `interrupted` is said when the user (or the system, by SIGTERM) ends the work early.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    unraisable = sys.unraisablehook
    sys.unraisablehook = _again(unraisable)
    try:
        yield
    except UserError as error:
        say(*(f"error: {fault}" for fault in error.faults))
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
        # Whoever read our output has gone (`knife ls | head -1`); typer ends quietly.
        raise
    except Exception as error:
        message = str(error).strip() or "no message"
        say(f"error: the work failed: {type(error).__name__}: {message}")
        say(f"the whole traceback is in {_keep_traceback()}")
        sys.exit(1)
    finally:
        sys.unraisablehook = unraisable
        signal.signal(signal.SIGTERM, before)


def say(*lines: str) -> None:
    """Lines for people, on stderr: stdout is for results. A reader that has gone stops nothing."""
    with suppress(OSError):
        for line in lines:
            print(line, file=sys.stderr, flush=True)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _again(
    unraisable: Callable[["sys.UnraisableHookArgs"], object],
) -> Callable[["sys.UnraisableHookArgs"], object]:
    """Send a signal once more that came while Python ran a destructor.

    What a destructor or the callback of a weak reference raises goes to `sys.unraisablehook` and no
    further: of Ctrl-C nothing would be left but a traceback, and the work would go on.
    """

    def hook(found: "sys.UnraisableHookArgs") -> None:
        if not issubclass(found.exc_type, KeyboardInterrupt):
            unraisable(found)
            return
        number = signal.SIGTERM if issubclass(found.exc_type, Terminated) else signal.SIGINT
        # Later: what a signal raises in this very function is lost as well.
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
