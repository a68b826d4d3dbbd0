"""The sender: brings what tracked runs have told to MLflow, in order, as far as it answers."""

import sys
import threading
from pathlib import Path

import filelock
from mlflow import MlflowClient

from knife.store import Store
from knife.track.address import Address
from knife.track.connect import connect, is_away, one_try, reason
from knife.track.journal import Position, read_stage
from knife.track.outbox import Outbox
from knife.track.run import TrackedRun


class Sender:
    """All runs of one experiment that this process tells MLflow of.

    Args:
        address: MLflow.
        store: the artifact store's root.
        experiment: the experiment's name.

    Attributes:
        told: set when there is something to send.
        opening: held while a run is looked for and created, so that two drivers do not create it
            twice.
        failure: why the last sending failed, in a line without passwords; None where it did not.
        refused: what MLflow will never take, and why.
    """

    def __init__(self, address: Address, store: Path, experiment: str) -> None:
        self.address = address
        self.store = store.absolute()
        self.told = threading.Event()
        self.opening = filelock.FileLock(self.store / "mlflow.lock", timeout=60)
        self.failure: str | None = None
        self.refused: dict[str, str] = {}
        self.sending = threading.RLock()
        self._name = experiment
        self._link: tuple[MlflowClient, str] | None = None
        self._runs: dict[tuple[str, ...], TrackedRun] = {}
        self._outboxes: dict[Path, Outbox] = {}

    @property
    def client(self) -> MlflowClient:
        """MLflow's client, once it was reached."""
        assert self._link, "MLflow is reached first"
        return self._link[0]

    @property
    def experiment(self) -> str:
        """The experiment's id, once MLflow was reached."""
        assert self._link, "MLflow is reached first"
        return self._link[1]

    @property
    def runs(self) -> list[TrackedRun]:
        """All runs, parents before their children."""
        return list(self._runs.values())

    @property
    def whole(self) -> bool:
        """Whether all that was told is on disk."""
        return all(outbox.whole for outbox in self._outboxes.values())

    def reach(self) -> bool:
        """Open MLflow where that is not done yet; whether it was done before.

        Raises:
            AwayError, UserError: as `connect` does.
        """
        if self._link:
            return True
        self._link = connect(self.address, self.store, self._name)
        return False

    def run(
        self,
        parent: TrackedRun | None,
        place: tuple[str, ...],
        name: str,
        params: dict[str, str],
        tags: dict[str, str],
        outbox: Outbox,
    ) -> TrackedRun:
        """The run of that place, which begins or goes on; the same object for the same place."""
        run = self._runs.get(place)
        if run is None:
            run = self._runs[place] = TrackedRun(self, parent, place, name, outbox)
        if not run.told_now:
            run.opened(params, tags)
        return run

    def replay(self, outbox: Outbox) -> None:
        """Queue what an earlier process has left in an outbox."""
        self._outboxes[outbox.path] = outbox
        for told in outbox.waiting:
            run = self._runs.get(told.place)
            if run is None:
                parent = self._runs.get(told.place[:-1])
                name = told.values.get("name", told.place[-1])
                run = self._runs[told.place] = TrackedRun(self, parent, told.place, name, outbox)
            if told.what == "follow":
                stage = told.values["kind"], told.values["key"]
                run.send(read_stage(Store(self.store, write=False), *stage, Position())[0])
            else:
                run.hear(told)
        outbox.waiting = []

    def living(self) -> set[str]:
        """MLflow's ids of the runs that are this process's, or that wait for their end."""
        return {run.run_id for run in self.runs if run.run_id and (run.told_now or run.ending)}

    def refuse(self, what: str, error: Exception) -> None:
        """Note that MLflow will never take `what`; it is given up."""
        self.refused[what] = reason(error)

    def flush(self) -> bool:
        """Send all that is queued, now and in this thread; False where something stayed behind."""
        beyond = sys.exception()
        with self.sending:
            failure = self._send()
            self.failure = reason(failure, beyond) if failure else None
        return failure is None

    def unsent(self) -> list[str]:
        """One line for each run that MLflow does not have whole, and what it lacks."""
        lines = [
            f"MLflow lacks {lacking} of run {run.name!r}: {self.failure or 'not sent yet'}"
            for run in self.runs
            if (lacking := run.unsent())
        ]
        return lines + [f"MLflow did not take {what}: {why}" for what, why in self.refused.items()]

    def close(self) -> None:
        """Let go of the outboxes, and remove them where all is sent."""
        done = not any(run.unsent() for run in self.runs)
        for outbox in self._outboxes.values():
            outbox.close(done=done)

    def _send(self) -> Exception | None:
        try:
            if self.reach() and self.failure:
                # One request of some seconds finds out whether it answers again.
                with one_try():
                    self.client.get_experiment(self.experiment)
        except Exception as error:
            return error
        failure: Exception | None = None
        # Metrics first, in all runs: an upload that fails holds up no metric and no status.
        for part in (TrackedRun.send_queued, TrackedRun.upload_queued, TrackedRun.settle):
            for run in self.runs:
                try:
                    part(run)
                except Exception as error:
                    failure = error
                    if is_away(error) or part is TrackedRun.send_queued:
                        return failure
                    break
        return failure
