"""The tracker: MLflow as the driver sees it. It never raises into a run, and loses nothing."""

import logging
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock
import yaml

from knife.errors import UserError
from knife.track.connect import FAILURES, connect, reason
from knife.track.params import to_params
from knife.track.run import TrackedRun
from knife.track.secrets import redact, redact_values

log = logging.getLogger("knife.track")

# Seconds between two sendings; doubled with each that fails, up to the longest.
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


class Tracker:
    """Sends what runs have to say to MLflow, from a thread of its own.

    What its runs are told to record is queued at once and sent by the thread, so that no caller
    ever waits for MLflow. Where sending fails, it warns once, keeps all, and tries again; `close`
    tries a last time and says what is still unsent. MLflow's global state is not touched.

    Args:
        uri: MLflow's tracking uri; None is MLFLOW_TRACKING_URI, or else `mlflow.db` in the store.
        store: the artifact store's root.
        experiment: name of the MLflow experiment, created where it is missing.

    Raises:
        UserError: where MLflow cannot be opened, within seconds.
    """

    def __init__(self, uri: str | None, store: Path, experiment: str) -> None:
        self.client, full_uri, self.experiment_id = connect(uri, store, experiment)
        #: Without password: may be shown.
        self.uri = redact(full_uri)
        #: Held while a run is looked for and created, so that two drivers do not create it twice.
        self.opening = filelock.FileLock(store.absolute() / "mlflow.lock", timeout=60)
        self._runs: dict[tuple[str, ...], TrackedRun] = {}
        self._refused: dict[str, str] = {}
        self._failure: str | None = None
        self._warned = False
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="knife-track", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open_run(
        self, name: str, key: str, config: dict[str, Any], tags: dict[str, str]
    ) -> TrackedRun:
        """The parent run of `key`: gone on with where MLflow has it, or else created.

        The resolved config goes into its params and, whole, into the artifact config.yaml.

        Raises:
            UserError: where MLflow refuses the run, so that nobody works for hours to no record.
        """
        run = self.run(None, name, key, to_params(config), tags)
        try:
            with self._sending:
                run.open()
        except FAILURES as error:
            raise UserError(
                f"track.uri: MLflow at {self.uri} does not take the run {name!r}: {reason(error)}"
            ) from error
        text = yaml.safe_dump(redact_values(config), sort_keys=False, allow_unicode=True)
        run.text("config.yaml", text)
        return run

    def run(
        self,
        parent: TrackedRun | None,
        name: str,
        key: str,
        params: dict[str, str],
        tags: dict[str, str],
    ) -> TrackedRun:
        """The run of `key` under `parent`; the same object for the same place."""
        place = (*(parent.place if parent else ()), key)
        if place not in self._runs:
            self._runs[place] = TrackedRun(self, parent, place, name, params, tags)
            self.wake()
        return self._runs[place]

    def run_ids(self) -> set[str]:
        """MLflow's ids of the runs that are open."""
        return {run.run_id for run in list(self._runs.values()) if run.run_id}

    def wake(self) -> None:
        """Let the thread send what is queued."""
        self._wake.set()

    def flush(self) -> bool:
        """Send all that is queued, now and in this thread; False where something stayed behind."""
        beyond = sys.exception()
        with self._sending:
            runs = list(self._runs.values())
            # Metrics first, in all runs: an upload that fails holds up no metric and no status.
            parts = (
                [run.send_queued for run in runs],
                [run.upload_queued for run in runs],
                [run.settle for run in runs],
            )
            failure: BaseException | None = None
            for number, part in enumerate(parts):
                try:
                    for send in part:
                        send()
                except Exception as error:
                    failure = error
                    if number == 0:
                        break
            self._failure = reason(failure, beyond) if failure else None
        if failure and not self._warned:
            self._warned = True
            log.warning(
                "MLflow at %s fails: %s. The work goes on; what is unsent is kept "
                "and sent again later.",
                self.uri,
                self._failure,
            )
        return failure is None

    def refuse(self, what: str, error: Exception) -> None:
        """Note that MLflow will never take `what`; it is given up."""
        if what not in self._refused:
            log.warning("MLflow does not take %s: %s", what, reason(error))
        self._refused[what] = reason(error)

    def unsent(self) -> list[str]:
        """One line for each run that MLflow does not have whole, and what it lacks."""
        lines = [
            f"MLflow lacks {lacking} of run {run.name!r}: {self._failure or 'not sent yet'}"
            for run in self._runs.values()
            if (lacking := run.unsent())
        ]
        return lines + [f"MLflow did not take {what}: {why}" for what, why in self._refused.items()]

    def close(self) -> list[str]:
        """Try a last time, stop the thread, and return (and warn of) what is still unsent."""
        if not self._stop.is_set():
            self._stop.set()
            self._wake.set()
            self._thread.join()
            self.flush()
            for line in self.unsent():
                log.warning("%s", line)
        return self.unsent()

    def _loop(self) -> None:
        pause = SHORTEST_PAUSE
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stop.is_set():
                return
            if self.flush():
                pause = SHORTEST_PAUSE
            else:
                pause = min(2 * pause, LONGEST_PAUSE)
                self._wake.set()
            # What is told in the meantime goes in one batch.
            self._stop.wait(pause)
