"""The tracker: shows a run or a sweep in MLflow while it is made. It never raises into the work."""

import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from mlflow import MlflowClient

from knife.core.errors import UserError
from knife.core.words import command_line
from knife.store.store import Store
from knife.track.address import resolve
from knife.track.catch_up import Trees, catch_up, tracking_lock
from knife.track.connect import FAILURES, AwayError, is_away, reason
from knife.track.destination import Destination
from knife.track.node import RunNode
from knife.track.page import run_page
from knife.track.settings import mlflow_settings
from knife.track.view import View

log = logging.getLogger("knife.track")

# Seconds between two looks at the store; doubled after each that fails, up to the longest.
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
# For at most this many runs the user sees what MLflow lacks; the others are counted.
SHOWN = 5


class Tracker:
    """Sends MLflow, from its own thread, what the store has of a run or a sweep.

    No caller waits for MLflow. If it does not answer, from the start or later, the tracker warns
    once and tries again; `close` tries a last time. What MLflow then lacks is sent by the next
    start, or by `knife sync`: all of it is in the store. MLflow's global state is not touched.

    Args:
        uri: MLflow's tracking URI; None is MLFLOW_TRACKING_URI, or else `mlflow.db` in the store.
        store: the artifact store.
        experiment: name of the MLflow experiment, created if it is missing.
        trees: how the trees of the store's other runs and sweeps are made, by their kind.

    Raises:
        UserError: MLflow answers but cannot be used as it is; raised within seconds.
    """

    def __init__(self, uri: str | None, store: Store, experiment: str, trees: Trees) -> None:
        self._store = store
        self._trees = trees
        self._view = View(resolve(uri, store.root), store, experiment)
        #: Without the password, so it may be shown.
        self.uri = self._view.address.shown
        self._destination = Destination(self.uri, self._view.address.where, experiment)
        self._folder: Path | None = None
        self._tree: Callable[[], RunNode] | None = None
        self._root: RunNode | None = None
        self._lock: FileLock | None = None
        self._sending = threading.RLock()
        self._warned = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="knife-track", daemon=True)
        with ExitStack() as settings:
            settings.enter_context(mlflow_settings())
            try:
                self._view.reach()
            except AwayError as error:
                self._warn(str(error))
            self._settings = settings.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        unsent = self.close()
        # Callers that end without an error report it themselves.
        for line in unsent if kind else []:
            log.warning("%s", line)

    @property
    def client(self) -> MlflowClient:
        """MLflow's client, once MLflow has answered."""
        return self._view.client

    @property
    def experiment_id(self) -> str:
        """The experiment's id, once MLflow has answered."""
        return self._view.experiment

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run that is shown; None until it is found or created there."""
        return self._view.run_id((self._root.key,)) if self._root else None

    def show(self, folder: Path, tree: Callable[[], RunNode]) -> None:
        """Show the run or sweep in a folder of the store from now on: resumed if MLflow has it, or
        else created. `tree` makes what is to be shown, again and again, from another thread.

        Raises:
            UserError: MLflow refuses the run; raised now rather than after hours of work.
        """
        before = Destination.read(folder)
        if before and before.same_place(self._destination):
            self._view.known = before.run_id is not None and not before.whole
        self._folder, self._tree, self._root = folder, tree, tree()
        self._lock = tracking_lock(self._store, folder)
        held = self._hold()
        if held:
            self._note(whole=False)
        if not self._warned:
            self._open(self._root, resume=held)
        if held:
            self._note(whole=False)
        self._thread.start()

    def link(self) -> str:
        """Return where to look at the run: its page, or the command that opens the UI."""
        address = self._view.address
        if address.where == "store":
            return command_line("knife", "ui", "--store", self._store.root)
        if not address.uri.startswith(("http://", "https://")):
            return command_line("mlflow", "ui", "--backend-store-uri", address.shown)
        # A link with `***` for user and password would not work.
        parts = urlsplit(address.shown)
        page = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        return page + (run_page(self.experiment_id, self.run_id) if self.run_id else "")

    def flush(self, *, last: bool = False) -> bool:
        """Send what MLflow lacks, now and in this thread; False if something is left.

        With `last`, files and models are sent too.
        """
        with self._sending:
            if self._tree is None:
                return True
            if not self._hold():
                # Another process shows the same run, from the same store.
                return True
            try:
                self._root = self._tree()
                sent = self._view.send(self._root, last=last)
            except Exception as error:
                # Tracking never stops the work: a file system may fail for the moment.
                self._view.failure = reason(error)
                sent = False
            if not sent and not self._warned:
                self._warn(str(self._view.failure), "fails")
            return sent

    def unsent(self) -> list[str]:
        """Return what MLflow lacks, by run, and what to do; empty if it has everything."""
        lines = self._view.lacking(self._root) if self._root else []
        if len(lines) > SHOWN:
            lines = [*lines[:SHOWN], f"MLflow lacks something of {len(lines) - SHOWN} more runs"]
        if lines:
            root = self._store.root
            lines.append(f"the store has all of it: {_sync(root)} sends it later")
        return lines + self._view.refusals()

    def close(self) -> list[str]:
        """Try a last time, stop the thread, and return what is still unsent."""
        if not self._stop.is_set():
            self._stop.set()
            if self._thread.is_alive():
                self._thread.join()
            with self._settings:
                whole = self.flush(last=True)
                for line in self._view.mended():
                    log.warning("%s", line)
                if self._lock and self._lock.is_locked:
                    self._note(whole=whole)
                    self._lock.release()
        return self.unsent()

    def _hold(self) -> bool:
        """Whether this process is the one that sends the run; it tries to become it."""
        assert self._lock
        if not self._lock.is_locked:
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                return False
        return True

    def _note(self, *, whole: bool) -> None:
        assert self._folder
        self._destination = replace(self._destination, run_id=self.run_id, whole=whole)
        self._destination.write(self._folder)

    def _open(self, root: RunNode, *, resume: bool) -> None:
        try:
            # Two drivers of the same run must not both create it.
            with FileLock(self._store.root / "mlflow.lock", timeout=60):
                self._view.open(root, resume=resume)
        except FAILURES as error:
            if is_away(error):
                self._warn(reason(error))
                return
            raise UserError(
                f"track.uri: MLflow at {self.uri} does not take the run {root.name!r}: "
                f"{reason(error)}"
            ) from error

    def _warn(self, why: str, what: str = "does not answer") -> None:
        self._warned = True
        log.warning(
            "MLflow at %s %s: %s. The work continues, and the store keeps all that MLflow has to "
            "show; it is sent when MLflow answers, at the next start of the same, or by: %s",
            self.uri,
            what,
            why,
            _sync(self._store.root),
        )

    def _loop(self) -> None:
        shortest = pause = max(SHORTEST_PAUSE, self._store.seconds)
        caught_up = False
        while not self._stop.wait(pause):
            pause = shortest if self.flush() else min(2 * pause, LONGEST_PAUSE)
            if not caught_up and pause == shortest:
                # Send what dead processes have left of other runs.
                caught_up = True
                catch_up(self._store, self._trees)


def _sync(store: Path) -> str:
    return command_line("knife", "sync", "--store", store)
