"""MLflow's view of runs and sweeps: what a tree shows and MLflow lacks is sent, again and again."""

import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from knife.core.errors import UserError
from knife.core.words import counted
from knife.store.store import Store
from knife.track.address import Address, sqlite_path
from knife.track.connect import AwayError, connect, is_away, one_try, reason
from knife.track.curves import Curves
from knife.track.node import Place, RunNode
from knife.track.remote import (
    FINAL,
    PARENT,
    GoneError,
    RemoteRun,
    active,
    create,
    find,
    find_orphan,
    nested,
)
from knife.train.journal import Position, Row, read_rows, read_stage

# How many refused things of a run are named; more are counted.
_NAMED = 3


@dataclass
class _Shown:
    """A run in MLflow, and how far the files with its measurements have been read."""

    remote: RemoteRun
    curves: Curves = field(default_factory=Curves)
    positions: dict[object, Position] = field(default_factory=dict)
    waiting: list[Row] = field(default_factory=list)
    # The ended node of which MLflow has all measurements, so that no file has to be read again.
    done: RunNode | None = None


class View:
    """What one experiment of MLflow shows of a tree of runs.

    Args:
        address: MLflow's address.
        store: the artifact store.
        experiment: the experiment's name.
        known: whether MLflow had the runs before. Those that are deleted are then restored.

    Attributes:
        failure: why the last `send` failed, in a line without passwords; None if it did not.
    """

    def __init__(
        self, address: Address, store: Store, experiment: str, *, known: bool = False
    ) -> None:
        self.address = address
        self.failure: str | None = None
        self.known = known
        self._store = store
        self._name = experiment
        self._link: tuple[MlflowClient, str] | None = None
        self._file: tuple[int, int] | None = None
        self._shown: dict[Place, _Shown] = {}
        # MLflow's ids of runs that are to be there.
        self._ids: dict[Place, str] = {}
        self._nested: dict[str, dict[str, Run]] = {}
        self._refused: dict[Place, dict[str, str]] = {}
        self._names: dict[Place, str] = {}
        self._restored: list[str] = []
        self._lost: list[str] = []

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

    def run_id(self, place: Place) -> str | None:
        """Return MLflow's id of a run; None until it is found or created there."""
        return self._ids.get(place)

    def reach(self) -> bool:
        """Open MLflow if it is not open yet; return whether it was.

        Raises:
            AwayError, UserError: as `connect` does.
        """
        if self._link:
            if self._file != self._database():
                # The file that is open here is not the one that others see.
                self._shown.clear()
                raise AwayError(
                    "the database file was replaced or removed while it was in use; another process"
                    " sends all of it to the new one"
                )
            return True
        self._link = connect(self.address, self._store.root, self._name)
        self._file = self._database()
        return False

    def open(self, root: RunNode, *, resume: bool) -> None:
        """Find or create the tree's first run; with `resume`, set its status too.

        Raises:
            MlflowException, OSError: MLflow cannot be reached or refuses the run.
        """
        self._open((root.key,), root)
        if resume:
            self._end((root.key,), root)

    def send(self, root: RunNode, *, last: bool = False) -> bool:
        """Send what MLflow lacks; False if something is left, for the reason in `failure`.

        With `last`, files and models are sent too, and runs that were deleted in MLflow are brought
        back even if there is nothing new to send to them.
        """
        beyond = sys.exception()
        failure = self._send(root, last)
        if last and failure is None:
            failure = self._bring_back() or self._send(root, last)
        self.failure = reason(failure, beyond) if failure else None
        return failure is None

    def lacking(self, root: RunNode) -> list[str]:
        """Return a line for each run that is incomplete in MLflow, with what it lacks."""
        lines = []
        for place, node in root.walk() if self.failure else []:
            if words := self._lacks(place, node):
                lines.append(f"MLflow lacks {words} of run {node.name!r}: {self.failure}")
        if self.failure and not lines:
            lines.append(f"MLflow lacks something of run {root.name!r}: {self.failure}")
        return lines

    def refusals(self) -> list[str]:
        """Return a line for each run of which MLflow refused something."""
        lines = []
        for place, refused in self._refused.items():
            whats = list(refused)
            more = f" and {len(whats) - _NAMED} more" if len(whats) > _NAMED else ""
            what = f"{', '.join(whats[:_NAMED])}{more}"
            name = self._names[place]
            lines.append(f"MLflow did not take {what} of run {name!r}: {refused[whats[0]]}")
        return lines

    def mended(self) -> list[str]:
        """Return lines about runs that were deleted in MLflow and are there again."""
        lines = []
        for names, words in (
            (self._restored, "deleted in MLflow meanwhile: restored there"),
            (self._lost, "no longer in MLflow: all that the store has was sent again"),
        ):
            if names:
                lines.append(f"{counted(len(names), 'run')} {words} ({', '.join(names)})")
        return lines

    def counts(self) -> list[tuple[str, Counter[str]]]:
        """Return each run's name, and how much of what was sent of it."""
        return [(self._names[place], shown.remote.count) for place, shown in self._shown.items()]

    def _send(self, root: RunNode, last: bool) -> Exception | None:
        try:
            if self.reach() and self.failure:
                # One request of a few seconds finds out whether MLflow answers again.
                with one_try():
                    self._look_at_experiment()
        except Exception as error:
            return error
        runs = list(root.walk())
        failure: Exception | None = None
        # Metrics of all runs first: a failed upload holds up neither metrics nor statuses.
        for part in (self._measure, self._describe, *([self._upload] if last else []), self._end):
            for place, node in runs:
                try:
                    self._whole(place, node, part)
                except Exception as error:
                    failure = self._experiment_deleted() or error
                    if place in self._shown:
                        # What failed may have arrived all the same.
                        self._shown[place].remote.forget()
                    if is_away(error) or part == self._measure:
                        return failure
                    break
        for place, node in runs if failure is None else []:
            if node.ended is not None:
                self._shown[place].done = node
        return failure

    def _whole(self, place: Place, node: RunNode, part: Callable[[Place, RunNode], None]) -> None:
        """Send a part of a run; if the run was deleted, bring it back and try again."""
        try:
            part(place, node)
        except GoneError as gone:
            self._look_at_experiment()
            self._return(place, gone)
            for each in (self._measure, self._describe, self._upload, self._end):
                each(place, node)
                if each == part:
                    break

    def _measure(self, place: Place, node: RunNode) -> None:
        """Send params, tags, data sets and measurements."""
        shown = self._open(place, node)
        if shown.done == node:
            return
        remote = shown.remote
        self._offer(place, "params and tags", partial(remote.describe, node.params, node.tags))
        self._offer(place, "data sets", partial(remote.inputs, node.inputs))
        self._read(shown, node)
        remote.rows([*node.rows, *shown.waiting])
        shown.waiting.clear()
        moment = time.time() if node.ended is None else node.ended
        self._offer(place, "the summary", partial(remote.summary, node.summary, moment))

    def _describe(self, place: Place, node: RunNode) -> None:
        """Send texts."""
        for name, text in node.texts.items():
            send = partial(self._shown[place].remote.text, name, text)
            self._offer(place, f"artifact {name}", send)

    def _upload(self, place: Place, node: RunNode) -> None:
        """Send files and the model."""
        remote = self._shown[place].remote
        for path in node.files:
            what = f"artifact {path.rpartition('/')[2]}"
            self._offer(place, what, partial(remote.file, self._located(path)))
        if node.model:
            name = _model_name(node.name)
            send = partial(remote.model, self._located(node.model), name)
            self._offer(place, f"model {name}", send)
            if node.registered:
                what = f"registered model {node.registered}"
                self._offer(place, what, partial(remote.register, name, node.registered))

    def _end(self, place: Place, node: RunNode) -> None:
        """Set the status."""
        self._shown[place].remote.end(node.status, node.ended)

    def _offer(self, place: Place, what: str, send: Callable[[], None]) -> None:
        """Send something; what MLflow will never accept is noted and given up."""
        if what in self._refused.get(place, {}):
            return
        try:
            send()
        except (MlflowException, FileNotFoundError) as error:
            if isinstance(error, MlflowException):
                if error.error_code not in FINAL:
                    raise
                self._shown[place].remote.look()
            self._refuse(place, what, error)

    def _refuse(self, place: Place, what: str, error: Exception) -> None:
        self._refused.setdefault(place, {})[what] = reason(error)

    def _read(self, shown: _Shown, node: RunNode) -> None:
        """Read the rows that were added to the files with the run's measurements."""
        for stage in node.journals:
            rows, shown.positions[stage] = read_stage(
                self._store, *stage, shown.positions.get(stage, Position())
            )
            shown.waiting += [row for row in shown.curves.rows(rows) if row["metrics"]]
        if node.row_file:
            with suppress(FileNotFoundError):
                position = shown.positions.get(node.row_file, Position())
                rows, shown.positions[node.row_file] = read_rows(
                    self._located(node.row_file), position
                )
                shown.waiting += rows

    def _located(self, path: str) -> Path:
        """Return a file of the store; one of an artifact in a bucket is downloaded first."""
        kind, key, name = path.split("/", 2)
        if kind in ("runs", "sweeps"):
            return self._store.root / path
        return self._store.path(kind, key) / name

    def _open(self, place: Place, node: RunNode) -> _Shown:
        """Find the run or create it; its parent is open."""
        shown = self._shown.get(place)
        if shown:
            return shown
        self._names[place] = node.name
        client, experiment, parent = self.client, self.experiment, self._ids.get(place[:-1])
        run = self._found(place, node, parent)
        if run is None:
            run = create(client, experiment, node.name, node.key, parent, node.began)
            if place in self._ids:
                self._lost.append(node.name)
            self._adopt(place, run.info.run_id)
        self._ids[place] = run.info.run_id
        remote = RemoteRun(
            client, experiment, run, lambda what, error: self._refuse(place, what, error)
        )
        shown = self._shown[place] = _Shown(remote)
        return shown

    def _found(self, place: Place, node: RunNode, parent: str | None) -> Run | None:
        """Find the run; restore it if MLflow has only marked it as deleted or lost its parent."""
        client, experiment = self.client, self.experiment
        if parent is None:
            run = find(client, experiment, node.key, None)
        else:
            if parent not in self._nested:
                self._nested[parent] = nested(client, experiment, parent)
            run = self._nested[parent].pop(node.key, None)
        if run or not (self.known or place in self._ids):
            return run
        deleted = find(client, experiment, node.key, parent, deleted=True)
        if deleted:
            client.restore_run(deleted.info.run_id)
            self._restored.append(node.name)
            return client.get_run(deleted.info.run_id)
        orphan = find_orphan(client, experiment, node.key) if parent else None
        if orphan:
            client.set_tag(orphan.info.run_id, PARENT, parent)
        return orphan

    def _adopt(self, place: Place, run_id: str) -> None:
        """Nest in a new run the runs that were nested in the one that is gone."""
        self._nested[run_id] = {}
        for below, child in self._ids.items():
            if below[:-1] == place:
                # It may have been deleted itself.
                with suppress(MlflowException):
                    self.client.set_tag(child, PARENT, run_id)

    def _return(self, place: Place, gone: GoneError) -> None:
        """Restore a run that was deleted, or have all of it sent to a new one."""
        if gone.restorable:
            self.client.restore_run(self._ids[place])
            self._restored.append(self._names[place])
            self._shown[place].remote.forget()
            self._shown[place].done = None
        else:
            del self._shown[place]
            self._nested.clear()

    def _bring_back(self) -> Exception | None:
        """Bring back runs that were deleted after the last thing was sent to them."""
        try:
            by_id = {run_id: place for place, run_id in self._ids.items()}
            gone = by_id.keys() - active(self.client, self.experiment, list(by_id))
            if gone:
                self._look_at_experiment()
            for place in [by_id[run_id] for run_id in by_id if run_id in gone]:
                try:
                    if place in self._shown:
                        self._shown[place].remote.look()
                except GoneError as error:
                    self._return(place, error)
        except Exception as error:
            return error
        return None

    def _lacks(self, place: Place, node: RunNode) -> str:
        shown = self._shown.get(place)
        if shown is None:
            return "all"
        parts = [f"{len(shown.waiting)} rows of metrics"] if shown.waiting else []
        if not shown.remote.shows(node.status):
            parts.append(f"the status {node.status}")
        return ", ".join(parts)

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

    def _database(self) -> tuple[int, int] | None:
        """Return the identity of the database file, if there is one."""
        if not self.address.uri.startswith("sqlite:"):
            return None
        with suppress(FileNotFoundError):
            found = sqlite_path(self.address.uri).stat()
            return found.st_dev, found.st_ino
        return None


def _model_name(name: str) -> str:
    """Replace the characters that MLflow refuses in a model's name."""
    return re.sub(r"[/:.%\"']", "-", name)
