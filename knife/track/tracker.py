"""The tracker: the driver's view of MLflow. It never raises into a run, and loses nothing."""

import logging
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import yaml
from mlflow import MlflowClient

from knife.core.errors import UserError
from knife.core.words import command_line
from knife.track.address import resolve
from knife.track.connect import FAILURES, AwayError, is_away, reason
from knife.track.outbox import Head, Outbox
from knife.track.page import run_page
from knife.track.params import to_params
from knife.track.resend import resend
from knife.track.run import TrackedRun
from knife.track.secrets import redact_values
from knife.track.sender import Sender
from knife.track.settings import mlflow_settings

log = logging.getLogger("knife.track")

# Seconds between two flushes; doubled after each that fails, up to the longest.
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
# For at most this many runs the user sees what MLflow lacks; the others are counted.
SHOWN = 5


class Tracker:
    """Sends the messages of runs to MLflow from its own thread.

    Messages are written to disk at once and sent by the thread, so that no caller waits for MLflow.
    If MLflow does not answer, from the start or later, the tracker warns once, keeps everything,
    and tries again; `close` tries a last time and returns what is still unsent. MLflow's global
    state is not touched.

    Args:
        uri: MLflow's tracking URI; None is MLFLOW_TRACKING_URI, or else `mlflow.db` in the store.
        store: the artifact store's root.
        experiment: name of the MLflow experiment, created if it is missing.

    Raises:
        UserError: MLflow answers but cannot be used as it is; raised within seconds.
    """

    def __init__(self, uri: str | None, store: Path, experiment: str) -> None:
        self._sender = Sender(resolve(uri, store), store, experiment)
        self._experiment = experiment
        #: Without the password, so it may be shown.
        self.uri = self._sender.address.shown
        self._warned = False
        self._stop = threading.Event()
        # Set once the outbox of this process's own run is held.
        self._look_around = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="knife-track", daemon=True)
        with ExitStack() as settings:
            settings.enter_context(mlflow_settings())
            try:
                self._sender.reach()
            except AwayError as error:
                self._warn(str(error))
            self._thread.start()
            self._settings = settings.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind:
            killed = issubclass(kind, KeyboardInterrupt)
            for run in self._sender.runs:
                if run.told_now and run.running:
                    run.finish("KILLED" if killed else "FAILED")
        unsent = self.close()
        # Callers that end without an error report it themselves.
        for line in unsent if kind else []:
            log.warning("%s", line)

    @property
    def client(self) -> MlflowClient:
        """MLflow's client, once MLflow has answered."""
        return self._sender.client

    @property
    def experiment_id(self) -> str:
        """The experiment's id, once MLflow has answered."""
        return self._sender.experiment

    def open_run(
        self,
        name: str,
        key: str,
        config: dict[str, Any],
        tags: dict[str, str],
        params: dict[str, Any] | None = None,
    ) -> TrackedRun:
        """Open the parent run of `key`: resumed if MLflow has it, or else created.

        Messages that an earlier process could not send go first. The resolved config becomes the
        artifact config.yaml; `params`, or else the whole config, can be searched.

        Raises:
            UserError: MLflow refuses the run; raised now rather than after hours of work.
        """
        address, sender = self._sender.address, self._sender
        outbox = Outbox.open(
            sender.store, Head(address.shown, address.where, self._experiment, name, key)
        )
        fresh = not outbox.waiting
        with sender.sending:
            sender.replay(outbox)
            run = sender.run(
                None, (key,), name, to_params(config if params is None else params), tags, outbox
            )
            try:
                if not self._warned:
                    self._open(run)
            except UserError:
                outbox.close(done=fresh)
                raise
        text = yaml.safe_dump(redact_values(config), sort_keys=False, allow_unicode=True)
        run.text("config.yaml", text)
        self._look_around.set()
        return run

    def link(self, run: TrackedRun) -> str:
        """Return where to look at a run: its page, or the command that opens the UI."""
        address, store = self._sender.address, self._sender.store
        if address.where == "store":
            return command_line("knife", "ui", "--store", store)
        if not address.uri.startswith(("http://", "https://")):
            return command_line("mlflow", "ui", "--backend-store-uri", address.shown)
        # A link with `***` for user and password would not work.
        parts = urlsplit(address.shown)
        page = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        return page + (run_page(self.experiment_id, run.run_id) if run.run_id else "")

    def flush(self, *, last: bool = False) -> bool:
        """Send all that is queued, now and in this thread; False if something is left.

        With `last`, runs that were deleted in MLflow are also brought back.
        """
        sent = self._sender.flush(last=last)
        if not sent and not self._warned:
            self._warn(str(self._sender.failure), "fails")
        return sent

    def unsent(self) -> list[str]:
        """Return what MLflow lacks, by run, and what to do; empty if it has everything."""
        lines = self._sender.unsent()
        if len(lines) > SHOWN:
            lines = [*lines[:SHOWN], f"MLflow lacks something of {len(lines) - SHOWN} more runs"]
        if self._sender.failure or any(run.unsent() for run in self._sender.runs):
            store = self._sender.store
            lines.append(
                f"it is kept in {store / 'outbox'}: {_sync(store)} sends it later"
                if self._sender.whole
                else f"{store / 'outbox'} could not be written whole: start the same run again"
            )
        return lines

    def close(self) -> list[str]:
        """Try a last time, stop the thread, and return what is still unsent."""
        if not self._stop.is_set():
            self._stop.set()
            self._sender.told.set()
            self._thread.join()
            with self._settings:
                self.flush(last=True)
                for line in self._sender.mended():
                    log.warning("%s", line)
                self._sender.close()
        return self.unsent()

    def _open(self, run: TrackedRun) -> None:
        try:
            run.open()
        except FAILURES as error:
            if is_away(error):
                self._warn(reason(error))
                return
            raise UserError(
                f"track.uri: MLflow at {self.uri} does not take the run {run.name!r}: "
                f"{reason(error)}"
            ) from error

    def _warn(self, why: str, what: str = "does not answer") -> None:
        self._warned = True
        store = self._sender.store
        log.warning(
            "MLflow at %s %s: %s. The work continues; metrics and all else are kept in %s and sent "
            "when it answers, at the next start of the same, or by: %s",
            self.uri,
            what,
            why,
            store / "outbox",
            _sync(store),
        )

    def _loop(self) -> None:
        pause = SHORTEST_PAUSE
        while True:
            self._sender.told.wait()
            self._sender.told.clear()
            if self._stop.is_set():
                return
            if self.flush():
                pause = SHORTEST_PAUSE
                if self._look_around.is_set():
                    # Send what dead processes have left of other runs.
                    self._look_around.clear()
                    resend(self._sender.store)
            else:
                pause = min(2 * pause, LONGEST_PAUSE)
                self._sender.told.set()
            # Messages queued during the pause go in one batch.
            self._stop.wait(pause)


def _sync(store: Path) -> str:
    return command_line("knife", "sync", "--store", store)
