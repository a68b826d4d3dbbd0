"""A Ray session: the cluster of RAY_ADDRESS, or a local one, and a watch over its processes."""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import psutil

from knife.cluster.address import (
    VARIABLE,
    cluster_address,
    one_meaning,
    refuse_dead_cluster,
    session_is_up,
)
from knife.cluster.local import local_errors, ray_folder
from knife.compat.ray import node_of_this_session, on_loopback, printing_lines
from knife.core.errors import SessionLostError, UserError, WorkFailedError, raise_errors
from knife.launch.silence import without_stderr

ENVIRONMENT = {
    # The end of a worker group, or its loss, waits for the controller's next poll: 2 s by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Workers share files that this process has cached by path.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
# A session cannot work without these. Ray's own processes detect a loss within seconds, print a
# page about it and end the driver; by then we have ended it with our own message.
_VITAL = ("raylet", "gcs_server")
_LOOK_SECONDS = 0.5
# A session of ours that loses one of Ray's own processes is replaced this often.
_MOST_SESSIONS = 3
T = TypeVar("T")


@contextmanager
def session(gpus: float) -> Iterator[list[str]]:
    """Enter a Ray session: the running one, the cluster of RAY_ADDRESS, or one on this machine.

    `gpus` is how many GPUs of this machine it gets. The context that started the session ends it,
    and yields a line with its dashboard's address, if it has one.

    Raises:
        UserError: no cluster answers at RAY_ADDRESS, or Ray cannot start on this machine.
        WorkFailedError: one of Ray's own processes died or was too slow while Ray started.
        SessionLostError: one of Ray's own processes on this machine has died, or the cluster.
    """
    if session_is_up():
        yield []
        return
    os.environ.update({k: v for k, v in ENVIRONMENT.items() if k not in os.environ})
    refuse_dead_cluster()
    import ray

    with one_meaning(), _without_logs_of_the_dead():
        with _own_sigterm():
            dashboard = _init(gpus)
        with _Watch() as watch:
            try:
                yield [f"Ray dashboard: http://{dashboard}"] if dashboard else []
            except Exception as error:
                # The first error may be a consequence of a dead process.
                if lost := watch.lost() or _cluster_lost(error):
                    raise lost from error
                raise
            finally:
                watch.end()
                with ExitStack() as quiet:
                    if watch.lost():
                        # Ray's core prints more while it shuts down.
                        quiet.enter_context(without_stderr())
                    ray.shutdown()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep our handler of SIGTERM: with Ray's, the process would crash and record nothing."""
    ours, terminated = signal.getsignal(signal.SIGTERM), False
    try:
        yield
    except SystemExit as error:
        # Raised by Ray's handler while Ray starts.
        if error.code != signal.SIGTERM:
            raise
        terminated = True
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)
    if terminated:
        signal.raise_signal(signal.SIGTERM)


def _init(gpus: float) -> str | None:
    """Start the session; return host and port of its dashboard."""
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address := cluster_address():
        try:
            context = ray.init(address, runtime_env={"env_vars": dict(ENVIRONMENT)}, **quiet)
        except (RuntimeError, OSError, ValueError, ray.exceptions.RayError) as error:
            raise UserError(
                f"{VARIABLE}: the Ray cluster at {address} cannot be used: {first_line(error)}"
            ) from error
        return context.dashboard_url or None
    raise_errors(local_errors())
    # One process less: this machine is not preempted with a notice.
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    try:
        with on_loopback():
            ray.init(
                address="local",
                include_dashboard=False,
                num_gpus=math.ceil(gpus),
                _temp_dir=str(ray_folder()),
                **quiet,
            )
    except (OSError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(f"Ray cannot start on this machine: {first_line(error)}") from error
    except Exception as error:
        # Ray raises a plain `Exception` if one of its processes died or was too slow.
        raise WorkFailedError(
            f"Ray did not start on this machine: {first_line(error)}",
            "the same command tries again; what is finished is kept",
        ) from error
    return None


def _cluster_lost(error: Exception) -> SessionLostError | None:
    """Return what to raise if an error of Ray means that the cluster of RAY_ADDRESS is gone."""
    import ray

    address = cluster_address()
    if not address or not isinstance(error, ray.exceptions.RayError):
        return None
    ray.shutdown()
    try:
        refuse_dead_cluster()
    except UserError:
        return SessionLostError(lost_words(address))
    return None


def lost_words(address: str) -> str:
    """Return what happened if the cluster at an address is gone."""
    return f"the Ray cluster at {address} was lost, or has lost its node on this host"


def next_session(lost: SessionLostError, number: int) -> str:
    """Return what to say as a lost session is replaced by a new one for the `number`th time.

    Raises:
        SessionLostError: `lost`, if that is too often.
    """
    if number > _MOST_SESSIONS:
        raise lost
    return f"{lost.what}; the work continues in a new Ray session ({number} of {_MOST_SESSIONS})"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _without_logs_of_the_dead() -> AbstractContextManager[None]:
    """Drop the last lines of a dead raylet's log, which its agents send the driver to print, and
    what they say of lost workers, which we say ourselves; print everything else they send."""
    ours = ("Raylet is terminated.", "A worker died or was killed while executing a task")
    return printing_lines(lambda lines: not any(line.startswith(ours) for line in lines))


class _Watch:
    """Watches the processes of a session started here, inside its `with` block.

    When a vital one has died, all others are killed, since they would hold locks and report the
    death at length, and callers waiting for work of the session get a `SessionLostError`.
    """

    now: "_Watch | None" = None

    def __init__(self) -> None:
        # A cluster's own processes are not children of this one.
        self._node = node_of_this_session()
        self._below: list[psutil.Process] = []
        self._waiting: list[Future[Any]] = []
        self._lock = threading.Lock()
        self._lost: SessionLostError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="knife-session", daemon=True)

    def __enter__(self) -> "_Watch":
        _Watch.now = self
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        _Watch.now = None

    def end(self) -> None:
        """Stop watching: the session is about to end normally."""
        self._stop.set()
        self._thread.join()

    def lost(self) -> SessionLostError | None:
        """Return what to raise if a vital process has died."""
        self._look()
        return self._lost

    def hand(self, done: Future[Any]) -> None:
        """Make a future fail when the session is lost."""
        with self._lock:
            self._waiting.append(done)
            if self._lost:
                _fail(done, self._lost)

    def _look_on(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            self._look()
            if self._lost:
                return

    def _look(self) -> None:
        with self._lock:
            if self._lost or self._stop.is_set():
                return
            dead = [(kind, p) for kind, p in self._node.dead_processes() if kind in _VITAL]
            if not dead:
                # The children of a dead process cannot be found.
                self._below = self._processes()
                return
            kind, process = dead[0]
            self._lost = SessionLostError(_words(kind, process.pid, process.returncode))
            for below in {*self._below, *self._processes()}:
                with suppress(psutil.Error):
                    below.kill()
            for done in self._waiting:
                _fail(done, self._lost)

    def _processes(self) -> list[psutil.Process]:
        """Return the session's processes, including its workers."""
        found = []
        with suppress(psutil.Error):
            for kind, process in self._node.live_processes():
                found.append(psutil.Process(process.pid))
                if kind == "raylet":
                    found += found[-1].children(recursive=True)
        return found


def _words(kind: str, pid: int, status: int) -> str:
    how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
    why = ", perhaps for lack of memory" if status == -signal.SIGKILL else ""
    return f"Ray's process {kind} ({pid}) {how}{why}"


def _fail(done: Future[Any], error: BaseException) -> None:
    with suppress(InvalidStateError):
        done.set_exception(error)


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Call `work` in a thread; Ctrl-C, or the loss of the session, ends a wait for its result.

    In the main thread, some parts of Ray would handle SIGINT themselves.
    """
    done: Future[T] = Future()
    if _Watch.now:
        _Watch.now.hand(done)

    def call() -> None:
        try:
            result = work()
        except BaseException as error:
            _fail(done, error)
        else:
            with suppress(InvalidStateError):
                done.set_result(result)

    threading.Thread(target=call, name="knife-fit", daemon=True).start()
    return done
