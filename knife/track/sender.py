"""The sender: sends the messages of tracked runs to MLflow, in order, as far as it answers."""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import filelock
from mlflow import MlflowClient

from knife.core.errors import UserError
from knife.core.words import counted
from knife.store.store import Store
from knife.track.address import Address, sqlite_path
from knife.track.connect import AwayError, connect, is_away, one_try, reason
from knife.track.outbox import Outbox
from knife.track.remote import GoneError, active
from knife.track.run import TrackedRun
from knife.train.journal import Position, read_stage

# How many refused messages of a run are named; more are counted.
_NAMED = 3


class Sender:
    """All runs of one experiment that this process sends to MLflow.

    Args:
        address: MLflow's address.
        store: the artifact store's root.
        experiment: the experiment's name.

    Attributes:
        told: set when there is something to send.
        opening: a lock held while a run is looked up and created, so that two drivers do not create
            it twice.
        failure: why the last flush failed, in a line without passwords; None if it did not.
        refused: by run, what MLflow will never accept, and why.
        restored: names of runs that were deleted in MLflow and restored there.
        lost: names of runs that were gone from MLflow and were sent again.
    """

    def __init__(self, address: Address, store: Path, experiment: str) -> None:
        self.address = address
        self.store = store.absolute()
        self.told = threading.Event()
        self.opening = filelock.FileLock(self.store / "mlflow.lock", timeout=60)
        self.failure: str | None = None
        self.refused: dict[str, dict[str, str]] = {}
        self.restored: list[str] = []
        self.lost: list[str] = []
        self.sending = threading.RLock()
        self._name = experiment
        self._link: tuple[MlflowClient, str] | None = None
        self._file: tuple[int, int] | None = None
        self._runs: dict[tuple[str, ...], TrackedRun] = {}
        self._outboxes: dict[Path, Outbox] = {}

    @property
    def client(self) -> MlflowClient:
        """MLflow's client, once MLflow was reached."""
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
        """Whether all messages are on disk."""
        return all(outbox.whole for outbox in self._outboxes.values())

    def reach(self) -> bool:
        """Open MLflow if it is not open yet; return whether it was.

        Raises:
            AwayError, UserError: as `connect` does.
        """
        if self._link:
            if self._file != self._database():
                # The file that is open here is not the one that others see.
                for run in self.runs:
                    run.begin_anew()
                raise AwayError(
                    "the database file was replaced or removed while it was in use; another process"
                    " sends all of it to the new one"
                )
            return True
        self._link = connect(self.address, self.store, self._name)
        self._file = self._database()
        return False

    def _database(self) -> tuple[int, int] | None:
        """Return the identity of the database file, if there is one."""
        if not self.address.uri.startswith("sqlite:"):
            return None
        with suppress(FileNotFoundError):
            found = sqlite_path(self.address.uri).stat()
            return found.st_dev, found.st_ino
        return None

    def run(
        self,
        parent: TrackedRun | None,
        place: tuple[str, ...],
        name: str,
        params: dict[str, str],
        tags: dict[str, str],
        outbox: Outbox,
    ) -> TrackedRun:
        """Begin or resume the run at a place; returns the same object for the same place."""
        run = self._runs.get(place)
        if run is None:
            run = self._runs[place] = TrackedRun(self, parent, place, name, outbox)
        if not run.told_now:
            run.opened(params, tags)
        return run

    def replay(self, outbox: Outbox) -> None:
        """Queue the messages that an earlier process left in an outbox."""
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
        """Return MLflow's ids of this process's runs, and of runs whose end is still unsent."""
        return {run.run_id for run in self.runs if run.run_id and (run.told_now or run.ending)}

    def children(self, parent: TrackedRun) -> list[TrackedRun]:
        """Return the nested runs of a run that are in MLflow."""
        return [r for r in self.runs if r.place[:-1] == parent.place and r.run_id]

    def refuse(self, name: str, what: str, error: Exception) -> None:
        """Note that MLflow will never accept `what` of a run, which is given up."""
        self.refused.setdefault(name, {})[what] = reason(error)

    def refusals(self) -> list[str]:
        """Return a line for each run of which MLflow refused something."""
        lines = []
        for name, refused in self.refused.items():
            whats = list(refused)
            more = f" and {len(whats) - _NAMED} more" if len(whats) > _NAMED else ""
            what = f"{', '.join(whats[:_NAMED])}{more}"
            lines.append(f"MLflow did not take {what} of run {name!r}: {refused[whats[0]]}")
        return lines

    def flush(self, *, last: bool = False) -> bool:
        """Send all that is queued, now and in this thread; False if something is left.

        With `last`, also check that MLflow still has all runs that were sent before.
        """
        beyond = sys.exception()
        with self.sending:
            failure = self._send()
            if last and failure is None:
                failure = self._missed() or self._send()
            self.failure = reason(failure, beyond) if failure else None
        return failure is None

    def unsent(self) -> list[str]:
        """Return a line for each run that is incomplete in MLflow, with what it lacks."""
        lines = [
            f"MLflow lacks {lacking} of run {run.name!r}: {self.failure or 'not sent yet'}"
            for run in self.runs
            if (lacking := run.unsent())
        ]
        if self.failure and not lines:
            lines.append(f"MLflow lacks something that it had: {self.failure}")
        return lines + self.refusals()

    def mended(self) -> list[str]:
        """Return lines about runs that were deleted in MLflow and are there again."""
        lines = []
        for names, words in (
            (self.restored, "deleted in MLflow meanwhile: restored there"),
            (self.lost, "no longer in MLflow: all that the store has was sent again"),
        ):
            if names:
                lines.append(f"{counted(len(names), 'run')} {words} ({', '.join(names)})")
        return lines

    def close(self) -> None:
        """Release the outboxes, and remove them if everything is sent."""
        done = not self.failure and not any(run.unsent() for run in self.runs)
        for outbox in self._outboxes.values():
            outbox.close(done=done)

    def _send(self) -> Exception | None:
        try:
            if self.reach() and self.failure:
                # One request of a few seconds finds out whether MLflow answers again.
                with one_try():
                    self._look_at_experiment()
        except Exception as error:
            return error
        failure: Exception | None = None
        # Metrics of all runs first: a failed upload holds up neither metrics nor statuses.
        for part in _PARTS:
            for run in self.runs:
                try:
                    self._whole(run, part)
                except Exception as error:
                    failure = self._experiment_deleted() or error
                    if is_away(error) or part is TrackedRun.send_queued:
                        return failure
                    break
        return failure

    def _whole(self, run: TrackedRun, part: Callable[[TrackedRun], None]) -> None:
        """Send a part of a run; if the run was deleted, bring it back and try again."""
        try:
            part(run)
        except GoneError as gone:
            self._look_at_experiment()
            run.made_whole(gone)
            for each in _PARTS[: _PARTS.index(part) + 1]:
                each(run)

    def _look_at_experiment(self) -> None:
        """Check that the experiment exists: otherwise its runs cannot be brought back.

        Raises:
            MlflowException: the experiment does not exist.
            UserError: the experiment was deleted and can be restored.
        """
        found = self.client.get_experiment(self.experiment)
        if found.lifecycle_stage != "active":
            raise UserError(
                f"the experiment {self._name!r} was deleted in MLflow; restore it (mlflow "
                f"experiments restore --experiment-id {self.experiment})"
            )

    def _experiment_deleted(self) -> UserError | None:
        """Return what to do if the experiment was deleted, which explains a refusal; else None."""
        try:
            self._look_at_experiment()
        except UserError as deleted:
            return deleted
        except Exception:
            # MLflow does not answer this either.
            return None
        return None

    def _missed(self) -> Exception | None:
        """Bring back runs that were deleted after their last message was sent."""
        try:
            by_id = {run.run_id: run for run in self.runs if run.run_id}
            gone = by_id.keys() - active(self.client, self.experiment, list(by_id))
            if gone:
                self._look_at_experiment()
            for run in self.runs:
                if run.run_id in gone and run.remote:
                    try:
                        run.remote.look()
                    except GoneError as error:
                        run.made_whole(error)
                if run.missing:
                    run.open()
        except Exception as error:
            return error
        return None


_PARTS: tuple[Callable[[TrackedRun], None], ...] = (
    TrackedRun.send_queued,
    TrackedRun.upload_queued,
    TrackedRun.settle,
)
