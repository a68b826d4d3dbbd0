"""One MLflow run: queues what it is told, and sends each thing once."""

from __future__ import annotations

import getpass
import math
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlflow.entities import LoggedModelOutput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from knife.track.journal import Row
from knife.track.params import to_params, to_tags
from knife.track.secrets import redact

if TYPE_CHECKING:
    from knife.track.tracker import Tracker

KEY = "knife.key"
PARENT = "mlflow.parentRunId"
# mlflow.utils.validation: what one log_batch may carry.
METRICS_A_BATCH = 1000
PARAMS_A_BATCH = 100
# Answers that stay the same however often one asks.
FINAL = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")

Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True, slots=True)
class Job:
    """Something to tell MLflow: `what` in words, and how."""

    what: str
    do: Callable[[], None]


class TrackedRun:
    """A run in MLflow, made by `Tracker.open_run` or `child`.

    Every method returns at once; the tracker's thread does the sending. Everything can be told
    again after a restart: a metric that MLflow has at a step is not sent twice, params that it
    has stay, artifacts are replaced, a model is logged once.

    Attributes:
        name: shown in MLflow.
        place: keys of its parents and its own: what the run is found by.
        run_id: MLflow's id, None until the run is open (a child is opened by the thread).
    """

    def __init__(
        self,
        tracker: Tracker,
        parent: TrackedRun | None,
        place: tuple[str, ...],
        name: str,
        params: dict[str, str],
        tags: dict[str, str],
    ) -> None:
        self.name = name
        self.place = place
        self.run_id: str | None = None
        self._tracker = tracker
        self._parent = parent
        self._params = params
        self._tags = to_tags(tags)
        self._rows: deque[Row] = deque()
        self._jobs: deque[Job] = deque([Job("params and tags", self._describe)])
        self._uploads: deque[Job] = deque()
        self._status: Status | None = None
        # Last step and value of each metric in MLflow; None where it has to be asked.
        self._newest: dict[str, tuple[int, float]] | None = None

    def child(
        self, name: str, key: str, params: dict[str, Any], tags: dict[str, str]
    ) -> TrackedRun:
        """The nested run of `key`: gone on with where MLflow has it, or else created."""
        return self._tracker.run(self, name, key, to_params(params), tags)

    def send(self, rows: list[Row]) -> None:
        """Record a journal's rows, in the order of their steps, `epoch` as a metric beside them.

        Journals that go into one run must not share a metric's name: of a metric, steps up to the
        newest that MLflow has are skipped.
        """
        if rows:
            self._rows.extend(rows)
            self._tracker.wake()

    def log_summary(self, metrics: dict[str, float]) -> None:
        """Record results of the whole run (names of their own, at step 0)."""
        moment = time.time()
        self._queue(self._jobs, "the summary", lambda: self._summary(metrics, moment))

    def tag(self, tags: dict[str, str]) -> None:
        """Set tags of the run."""
        clean = [RunTag(key, value) for key, value in to_tags(tags).items()]
        client = self._tracker.client
        self._queue(self._jobs, "tags", lambda: client.log_batch(self.run_id, tags=clean))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file or a folder's content, in `folder` of the run's artifacts."""
        path = path.absolute()
        self._queue(self._uploads, f"artifact {path.name}", lambda: self._artifact(path, folder))

    def text(self, name: str, text: str) -> None:
        """Record `text` (without passwords) as the artifact `name`."""
        clean = redact(text)
        self._queue(
            self._uploads,
            f"artifact {name}",
            lambda: self._tracker.client.log_text(self.run_id, clean, name),
        )

    def model(self, folder: Path, name: str) -> None:
        """Record a student's folder as a logged model, once however often it is told."""
        folder = folder.absolute()
        # The letters that MLflow refuses in a model's name.
        name = re.sub(r"[/:.%\"']", "-", name)
        self._queue(self._uploads, f"model {name}", lambda: self._model(folder, name))

    def end_strays(self) -> None:
        """End the nested runs that still run in MLflow and are none of this process's."""
        self._queue(self._uploads, "ends of nested runs", self._end_strays)

    def finish(self, status: Status) -> None:
        """Set the run's status, once all that was told before is sent or was tried."""
        self._status = status
        self._tracker.wake()

    def unsent(self) -> str:
        """What MLflow lacks, in words; empty where it has all."""
        rows = [f"{len(self._rows)} rows of metrics"] if self._rows else []
        jobs = [job.what for job in (*self._jobs, *self._uploads)]
        status = [f"the status {self._status}"] if self._status else []
        opening = ["the start"] if self.run_id is None else []
        return ", ".join(opening + rows + jobs + status)

    # The rest is called by the tracker, by one thread at a time.

    def open(self) -> None:
        """Find the run or create it.

        Raises:
            MlflowException, OSError: where MLflow cannot be reached or refuses the run.
        """
        if self.run_id is not None:
            return
        client = self._tracker.client
        with self._tracker.opening:
            run = self._find()
            if run is None:
                tags = self._own_tags()
                run = client.create_run(self._tracker.experiment_id, run_name=self.name, tags=tags)
                self._newest = {}
            else:
                client.update_run(run.info.run_id, status="RUNNING")
                self._newest = None
        self.run_id = run.info.run_id

    def send_queued(self) -> None:
        """Send metrics, params and summaries; raises where it fails, and keeps what is unsent."""
        try:
            self.open()
            self._send_rows()
            self._work(self._jobs)
        except Exception:
            # The failed batch may have arrived all the same: ask before sending again.
            self._newest = None
            raise

    def upload_queued(self) -> None:
        """Upload artifacts and models; raises where it fails, and keeps what is unsent."""
        self._work(self._uploads)

    def settle(self) -> None:
        """Set the status that `finish` was told."""
        status = self._status
        if status:
            self._tracker.client.set_terminated(self.run_id, status)
            # Told anew in the meantime: left for the next time.
            if self._status == status:
                self._status = None

    def _queue(self, queue: deque[Job], what: str, do: Callable[[], None]) -> None:
        queue.append(Job(what, do))
        self._tracker.wake()

    def _work(self, queue: deque[Job]) -> None:
        while queue:
            job = queue[0]
            try:
                job.do()
            except (MlflowException, FileNotFoundError) as error:
                if isinstance(error, MlflowException) and error.error_code not in FINAL:
                    raise
                self._tracker.refuse(f"{job.what} of run {self.name!r}", error)
            queue.popleft()

    def _end_strays(self) -> None:
        client, experiment = self._tracker.client, [self._tracker.experiment_id]
        parents, own = [self.run_id], self._tracker.run_ids()
        while parents:
            filters = f"tags.`{PARENT}` = '{parents.pop()}'"
            for run in client.search_runs(experiment, filters, max_results=10_000):
                parents.append(run.info.run_id)
                if run.info.run_id not in own and run.info.status == "RUNNING":
                    client.set_terminated(run.info.run_id, "KILLED")

    def _own_tags(self) -> dict[str, str]:
        tags = {
            KEY: self.place[-1],
            "mlflow.user": _user(),
            "mlflow.source.name": "knife",
            "mlflow.source.type": "LOCAL",
        }
        if self._parent:
            assert self._parent.run_id, "parents are opened first"
            tags[PARENT] = self._parent.run_id
        return tags

    def _find(self) -> Run | None:
        key = self.place[-1]
        assert "'" not in key
        filters = f"tags.`{KEY}` = '{key}'"
        if self._parent:
            filters += f" AND tags.`{PARENT}` = '{self._parent.run_id}'"
        found = self._tracker.client.search_runs(
            [self._tracker.experiment_id], filters, order_by=["attributes.start_time ASC"]
        )
        # A parent run has no parent; that cannot be asked for.
        return next((run for run in found if self._parent or PARENT not in run.data.tags), None)

    def _describe(self) -> None:
        """Params that the run lacks, and tags. A param cannot change in MLflow: one that has
        changed since (workers, say) stays, and the tag `knife.changed` tells."""
        client = self._tracker.client
        had = client.get_run(self.run_id).data.params
        new = [Param(key, value) for key, value in self._params.items() if key not in had]
        for start in range(0, len(new), PARAMS_A_BATCH):
            client.log_batch(self.run_id, params=new[start : start + PARAMS_A_BATCH])
        changed = {
            key: value for key, value in self._params.items() if had.get(key, value) != value
        }
        tags = dict(self._tags)
        if changed:
            words = "; ".join(f"{key}: {had[key]} -> {changed[key]}" for key in changed)
            tags |= to_tags({"knife.changed": words})
        client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def _known(self) -> dict[str, tuple[int, float]]:
        if self._newest is None:
            # One request; the public get_metric_history takes 5 s for 100,000 points.
            data = self._tracker.client.get_run(self.run_id).data
            self._newest = {m.key: (m.step, m.value) for m in data._metric_objs}
        return self._newest

    def _send_rows(self) -> None:
        if not self._rows:
            return
        rows = list(islice(self._rows, len(self._rows)))
        newest = dict(self._known())
        metrics = []
        for row in rows:
            values = row["metrics"] | ({"epoch": row["epoch"]} if "epoch" in row else {})
            for name, value in values.items():
                if row["step"] > newest.get(name, (-math.inf, 0.0))[0]:
                    metrics.append(Metric(name, value, int(row["time"] * 1000), row["step"]))
                    newest[name] = (row["step"], value)
        self._log(metrics, "metrics")
        self._newest = newest
        for _ in rows:
            self._rows.popleft()

    def _log(self, metrics: list[Metric], what: str) -> None:
        for start in range(0, len(metrics), METRICS_A_BATCH):
            try:
                batch = metrics[start : start + METRICS_A_BATCH]
                self._tracker.client.log_batch(self.run_id, metrics=batch)
            except MlflowException as error:
                if error.error_code not in FINAL:
                    raise
                self._tracker.refuse(f"{what} of run {self.name!r}", error)

    def _summary(self, metrics: dict[str, float], moment: float) -> None:
        known = self._known()
        new = [
            Metric(name, value, int(moment * 1000), 0)
            for name, value in metrics.items()
            if name not in known or known[name] != (0, value)
        ]
        self._log(new, "the summary")
        known.update({metric.key: (0, metric.value) for metric in new})

    def _artifact(self, path: Path, folder: str) -> None:
        client = self._tracker.client
        if path.is_dir():
            client.log_artifacts(self.run_id, str(path), folder or None)
        elif path.exists():
            client.log_artifact(self.run_id, str(path), folder or None)
        else:
            raise FileNotFoundError(f"{path} is not there")

    def _model(self, folder: Path, name: str) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder")
        client = self._tracker.client
        experiment = self._tracker.experiment_id
        found = client.search_logged_models(
            [experiment], f"source_run_id = '{self.run_id}' AND name = '{name}'"
        )
        if any(model.status == "READY" for model in found):
            return
        # One that is not ready is left from a driver that was killed while it uploaded.
        model = next(iter(found), None) or client.create_logged_model(
            experiment, name=name, source_run_id=self.run_id
        )
        client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step=0)])
        client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, "READY")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container whose user id has no name.
        return "unknown"
