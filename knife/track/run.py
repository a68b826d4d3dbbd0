"""A tracked run: queues messages at once, and sends them when MLflow answers."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from knife.store.store import Store
from knife.track.curves import Curves
from knife.track.data_set import DataSet
from knife.track.outbox import Outbox, Told, in_words
from knife.track.params import to_params, to_tags
from knife.track.remote import FINAL, PARENT, GoneError, RemoteRun, create, find, find_orphan
from knife.track.secrets import redact
from knife.train.journal import Position, Row, read_stage

Status = Literal["FINISHED", "FAILED", "KILLED"]
_UPLOADS = ("artifact", "text", "model", "register", "strays")


class Link(Protocol):
    """What a run needs from the sender that it belongs to."""

    store: Path
    told: threading.Event
    lost: list[str]
    restored: list[str]

    @property
    def opening(self) -> AbstractContextManager[Any]:
        """A lock held while a run is looked up and created, by one process at a time."""

    @property
    def client(self) -> MlflowClient:
        """MLflow's client, once MLflow has answered."""

    @property
    def experiment(self) -> str:
        """The experiment's id."""

    @property
    def runs(self) -> list[TrackedRun]:
        """All runs."""

    def run(
        self,
        parent: TrackedRun | None,
        place: tuple[str, ...],
        name: str,
        params: dict[str, str],
        tags: dict[str, str],
        outbox: Outbox,
    ) -> TrackedRun:
        """Open the run at a place."""

    def living(self) -> set[str]:
        """Return MLflow's ids of the runs that this process has opened."""

    def children(self, parent: TrackedRun) -> list[TrackedRun]:
        """Return the nested runs of a run."""

    def refuse(self, name: str, what: str, error: Exception) -> None:
        """Note what MLflow will never accept."""


class TrackedRun:
    """A run in MLflow, made by `Tracker.open_run` or `child`.

    Every public method returns at once: its message is in the outbox on disk, and is sent by the
    tracker's thread or later. Messages may be repeated after a restart: a metric that MLflow has at
    a step is not sent twice, params that it has stay, artifacts are replaced, a model is logged
    once.

    Attributes:
        name: shown in MLflow.
        place: the keys of its parents and its own, by which the run is found.
        remote: the run in MLflow; None until it is found or created.
        told_now: whether this process has opened it, and not only an earlier one.
        running: whether the run has begun and not ended.
    """

    def __init__(
        self,
        sender: Link,
        parent: TrackedRun | None,
        place: tuple[str, ...],
        name: str,
        outbox: Outbox,
    ) -> None:
        self.name = name
        self.place = place
        self.remote: RemoteRun | None = None
        self.told_now = False
        self.running = False
        self._sender = sender
        self._parent = parent
        self._outbox = outbox
        # Whether MLflow had the run at this start or an earlier one.
        self._was_open = False
        self._began = time.time()
        self._opening: Told | None = None
        self._curves = Curves()
        self._rows: deque[tuple[Row, Told | None]] = deque()
        self._jobs: deque[Told] = deque()
        self._uploads: deque[Told] = deque()
        self._ending: Told | None = None

    @property
    def run_id(self) -> str | None:
        """MLflow's id; None until the run is found or created there."""
        return self.remote.run_id if self.remote else None

    def child(
        self, name: str, key: str, params: dict[str, Any], tags: dict[str, str]
    ) -> TrackedRun:
        """Open the nested run of `key`: resumed if MLflow has it, or else created."""
        place = (*self.place, key)
        return self._sender.run(self, place, name, to_params(params), tags, self._outbox)

    def opened(self, params: dict[str, str], tags: dict[str, str]) -> None:
        """Queue the messages that the run begins or resumes."""
        self.told_now = True
        self._tell("open", name=self.name, time=time.time())
        self._tell("describe", params=params, tags=to_tags(tags))

    def follows(self, kind: str, key: str) -> None:
        """Note that the rows of a stage's journal belong to the run; `send` sends them."""
        self._tell("follow", kind=kind, key=key)

    def send(self, rows: list[Row]) -> None:
        """Record a journal's rows, in step order, under the metric names of `Curves`.

        They are not kept in the outbox: the journal has them, and `follows` records which one.
        Journals of one run must not share metric names: steps up to a metric's newest step in
        MLflow are skipped.
        """
        measured = [row for row in self._curves.rows(rows) if row["metrics"]]
        if measured:
            self._rows.extend((row, None) for row in measured)
            self._sender.told.set()

    def log_row(self, row: Row) -> None:
        """Record a row that is in no journal, unchanged; steps are treated as in `send`."""
        self._tell("rows", rows=[row])

    def log_summary(self, metrics: dict[str, float]) -> None:
        """Record results of the whole run, under their own names, at step 0."""
        metrics = {name: float(value) for name, value in metrics.items()}
        self._tell("summary", metrics=metrics, time=time.time())

    def tag(self, tags: dict[str, str]) -> None:
        """Set tags of the run."""
        self._tell("tags", tags=to_tags(tags))

    def inputs(self, sets: list[DataSet]) -> None:
        """Note the data that the run reads; the data itself is not copied."""
        self._tell("inputs", sets=[each.to_dict() for each in sets])

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file or the content of a folder, in `folder` of the run's artifacts."""
        self._tell("artifact", path=self._in_store(path), folder=folder)

    def text(self, name: str, text: str) -> None:
        """Record `text` (without passwords) as the artifact `name`."""
        self._tell("text", name=name, text=redact(text))

    def model(self, folder: Path, name: str) -> None:
        """Record a student's folder as a logged model; repeated calls log it once."""
        self._tell("model", folder=self._in_store(folder), name=_model_name(name))

    def register(self, name: str, registered: str) -> None:
        """Make the logged model `name` the newest version and the champion of a registered one."""
        self._tell("register", name=_model_name(name), registered=registered)

    def end_strays(self) -> None:
        """End the nested runs that are running in MLflow and were not opened by this process."""
        self._tell("strays")

    def finish(self, status: Status, moment: float | None = None) -> None:
        """Set the run's status, after all earlier messages were sent or attempted.

        If it failed or was killed, its nested runs that are still running end in the same way.
        """
        moment = time.time() if moment is None else moment
        for run in self._sender.runs if status != "FINISHED" else []:
            if run.running and run is not self and run.place[: len(self.place)] == self.place:
                run._tell("finish", status=status, time=moment)
        self._tell("finish", status=status, time=moment)

    def unsent(self) -> str:
        """Describe what MLflow lacks; empty if it has everything."""
        rows = [f"{len(self._rows)} rows of metrics"] if self._rows else []
        jobs = [in_words(job) for job in (*self._jobs, *self._uploads)]
        status = [f"the status {self._ending.values['status']}"] if self._ending else []
        opening = ["the start"] if self._opening else []
        return ", ".join(opening + rows + jobs + status)

    def hear(self, told: Told) -> None:
        """Queue a message that is in the outbox."""
        if told.what in ("open", "known") and not self._opening:
            self._began = told.values["time"]
        self._was_open |= told.what == "known"
        if told.what in ("open", "known", "finish"):
            self.running = told.what != "finish" and not told.values.get("ended")
        if told.what == "open":
            if self._opening:
                self._outbox.sent(self._opening)
            self._opening = told
        if told.what in ("open", "finish"):
            # It runs again, or has ended with a new status: an earlier one does not count.
            if self._ending:
                self._outbox.sent(self._ending)
            self._ending = told if told.what == "finish" else None
        elif told.what == "rows":
            self._rows.extend((row, told) for row in told.values["rows"])
        elif told.what in _UPLOADS:
            self._uploads.append(told)
        elif told.what in ("describe", "summary", "tags", "inputs"):
            self._jobs.append(told)

    # The methods below are called by the sender, from one thread at a time.

    def open(self) -> None:
        """Find the run or create it.

        Raises:
            MlflowException, OSError: MLflow cannot be reached or refuses the run.
        """
        opening, client = self._opening, self._sender.client
        if self.remote is None:
            experiment, key, parent = self._sender.experiment, self.place[-1], None
            if self._parent:
                self._parent.open()
                parent = self._parent.run_id
            with self._sender.opening:
                run = found = find(client, experiment, key, parent)
                if run is None and self._was_open:
                    run = found = self._restored(experiment, key, parent)
                if run is None:
                    run = create(client, experiment, self.name, key, parent, self._began)
            run_id, fresh = run.info.run_id, found is None
            self.remote = RemoteRun(client, experiment, run_id, self._refuse, fresh=fresh)
            if fresh and self._was_open:
                self._sender.lost.append(self.name)
                self._tell_again()
            for child in self._sender.children(self) if fresh else []:
                # It is still under the deleted run, unless it was deleted itself.
                assert child.run_id
                assert self.run_id
                with suppress(MlflowException):
                    client.set_tag(child.run_id, PARENT, self.run_id)
            opening = self._opening
        if opening:
            self._asked(lambda: client.update_run(self.run_id, status="RUNNING"))
            self._outbox.sent(opening)
            # A new message that came in the meantime is left for the next time.
            if self._opening is opening:
                self._opening = None
        self._was_open = True

    def made_whole(self, gone: GoneError) -> None:
        """Restore a run that was deleted, or have all of it sent to a new one."""
        assert self.remote
        if gone.restorable:
            self._sender.client.restore_run(self.remote.run_id)
            self.remote.forget()
            self._sender.restored.append(self.name)
        else:
            self.begin_anew()

    def begin_anew(self) -> None:
        """Find the run again or create it before anything else is sent."""
        self.remote = None

    def send_queued(self) -> None:
        """Send metrics, params and summaries; on failure, raise and keep what is unsent."""
        if not self.unsent():
            return
        try:
            self.open()
            self._send_rows()
            self._work(self._jobs)
        except Exception:
            # The failed batch may have arrived all the same: ask MLflow before sending again.
            if self.remote:
                self.remote.forget()
            raise

    def upload_queued(self) -> None:
        """Upload artifacts and models; on failure, raise and keep what is unsent."""
        # A run that was added since the runs were opened is left for the next time.
        if self.remote:
            self._work(self._uploads)

    def settle(self) -> None:
        """Set the status that was given to `finish`."""
        ending = self._ending
        # A queued `open` goes first: sent after the status, it would leave the run RUNNING.
        if ending and self.remote and not self._opening:
            remote, values = self.remote, ending.values
            self._asked(lambda: remote.finish(values["status"], values["time"]))
            self._outbox.sent(ending)
            # A new message that came in the meantime is left for the next time.
            if self._ending is ending:
                self._ending = None

    @property
    def missing(self) -> bool:
        """Whether MLflow once had the run, and it has not been found there since."""
        return self._was_open and self.remote is None

    @property
    def ending(self) -> bool:
        """Whether a status is waiting to be set."""
        return self._ending is not None

    def _restored(self, experiment: str, key: str, parent: str | None) -> Run | None:
        """Restore the run if MLflow has only marked it as deleted or has lost its parent."""
        client = self._sender.client
        found = find(client, experiment, key, parent, deleted=True)
        if found:
            client.restore_run(found.info.run_id)
            self._sender.restored.append(self.name)
        elif parent and (found := find_orphan(client, experiment, key)):
            client.set_tag(found.info.run_id, PARENT, parent)
        return found

    def _tell_again(self) -> None:
        """Queue all earlier messages again, ahead of those still queued, since the run is new."""
        queued = {told.number for told in (*self._jobs, *self._uploads)}
        queued |= {told.number for _, told in self._rows if told}
        history, curves = self._outbox.tell_again(self.place), Curves()
        rows: list[tuple[Row, Told | None]] = []
        jobs: list[Told] = []
        uploads: list[Told] = []
        for told in history:
            if told.what == "follow":
                stage = told.values["kind"], told.values["key"]
                found = read_stage(Store(self._sender.store, write=False), *stage, Position())[0]
                rows += [(row, None) for row in curves.rows(found) if row["metrics"]]
            elif told.what == "finish":
                # It has ended, unless a later message opens it again.
                self._ending = told
            elif told.what == "open":
                self._ending = None
            elif told.number in queued:
                continue
            elif told.what == "rows":
                rows += [(row, told) for row in told.values["rows"]]
            else:
                (uploads if told.what in _UPLOADS else jobs).append(told)
        self._rows.extendleft(reversed(rows))
        self._jobs.extendleft(reversed(jobs))
        self._uploads.extendleft(reversed(uploads))

    def _asked(self, request: Callable[[], object]) -> None:
        """Make a request that MLflow refuses for a deleted run."""
        try:
            request()
        except MlflowException as error:
            if error.error_code in FINAL and self.remote:
                self.remote.look()
            raise

    def _tell(self, what: str, **values: Any) -> None:
        self.hear(self._outbox.tell(self.place, what, values))
        self._sender.told.set()

    def _in_store(self, path: Path) -> str:
        """Return a path that stays valid when the store is moved."""
        path, store = path.absolute(), self._sender.store
        return str(path.relative_to(store) if path.is_relative_to(store) else path)

    def _send_rows(self) -> None:
        if not self._rows:
            return
        assert self.remote
        rows = list(islice(self._rows, len(self._rows)))
        self.remote.rows(row for row, _ in rows)
        # Each message once, in order.
        for told in dict.fromkeys(told.number for _, told in rows if told):
            self._outbox.sent(Told(told, self.place, "rows", {}))
        for _ in rows:
            self._rows.popleft()

    def _work(self, queue: deque[Told]) -> None:
        while queue:
            job = queue[0]
            try:
                self._do(job)
            except (MlflowException, FileNotFoundError) as error:
                if isinstance(error, MlflowException):
                    if error.error_code not in FINAL:
                        raise
                    assert self.remote
                    self.remote.look()
                self._refuse(in_words(job), error)
            self._outbox.sent(job)
            queue.popleft()

    def _do(self, job: Told) -> None:
        remote, values, store = self.remote, job.values, self._sender.store
        assert remote, "runs are opened first"
        match job.what:
            case "describe":
                remote.describe(values["params"], values["tags"])
            case "summary":
                remote.summary(values["metrics"], values["time"])
            case "tags":
                remote.tag(values["tags"])
            case "inputs":
                remote.inputs([DataSet(**each) for each in values["sets"]])
            case "artifact":
                remote.artifact(store / values["path"], values["folder"])
            case "text":
                remote.text(values["name"], values["text"])
            case "model":
                # It needs the results that were queued before it.
                self.send_queued()
                remote.model(store / values["folder"], values["name"])
            case "register":
                remote.register(values["name"], values["registered"])
            case "strays":
                remote.end_strays(self._sender.living())

    def _refuse(self, what: str, error: Exception) -> None:
        self._sender.refuse(self.name, what, error)


def _model_name(name: str) -> str:
    """Replace the characters that MLflow refuses in a model's name."""
    return re.sub(r"[/:.%\"']", "-", name)
