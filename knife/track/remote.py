"""A run in MLflow: found or created by its key, and sent only what it lacks."""

from __future__ import annotations

import getpass
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    Run,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException

from knife.compat.mlflow import newest_metrics
from knife.core import strict_json
from knife.track.connect import one_try
from knife.track.logged_model import log_model, register
from knife.track.node import DataSet
from knife.track.params import to_tags
from knife.train.journal import Row

KEY = "knife.key"
PARENT = "mlflow.parentRunId"
# The digest of every artifact that the run has: MLflow itself only knows their sizes.
FILES = "knife.files"
# From mlflow.utils.validation: the limits of one log_batch.
METRICS_A_BATCH = 1000
PARAMS_A_BATCH = 100
_IDS_A_SEARCH = 100
# Error codes for which a retry is useless.
FINAL = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")


class GoneError(Exception):
    """A run was deleted in MLflow.

    Attributes:
        restorable: whether it is only marked as deleted.
    """

    def __init__(self, *, restorable: bool) -> None:
        super().__init__("the run was deleted in MLflow")
        self.restorable = restorable


def active(client: MlflowClient, experiment: str, run_ids: Sequence[str]) -> set[str]:
    """Return those of the runs that MLflow has and has not marked as deleted."""
    found: set[str] = set()
    for start in range(0, len(run_ids), _IDS_A_SEARCH):
        ids = ", ".join(f"'{run_id}'" for run_id in run_ids[start : start + _IDS_A_SEARCH])
        runs = client.search_runs([experiment], f"attributes.run_id IN ({ids})")
        found |= {run.info.run_id for run in runs}
    return found


def nested(client: MlflowClient, experiment: str, parent: str) -> dict[str, Run]:
    """Return the runs directly under a run, by key; of two with one key the older."""
    found: dict[str, Run] = {}
    page = None
    while True:
        runs = client.search_runs(
            [experiment],
            f"tags.`{PARENT}` = '{parent}'",
            order_by=["attributes.start_time ASC"],
            page_token=page,
        )
        for run in runs:
            found.setdefault(run.data.tags.get(KEY, ""), run)
        page = runs.token
        if not page:
            return found


def find(
    client: MlflowClient, experiment: str, key: str, parent: str | None, *, deleted: bool = False
) -> Run | None:
    """Return the oldest run of `key` under the run `parent`, or without a parent if that is None;
    with `deleted`, of the runs that are marked as deleted."""
    # The key is quoted in a query.
    if "'" in key:
        raise ValueError(f"the key of a run must have no quote: {key!r}")
    filters = f"tags.`{KEY}` = '{key}'"
    if parent:
        filters += f" AND tags.`{PARENT}` = '{parent}'"
    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    found = client.search_runs([experiment], filters, view, order_by=["attributes.start_time ASC"])
    # A parent run has no parent, and a query cannot ask for that.
    return next((run for run in found if parent or PARENT not in run.data.tags), None)


def find_orphan(client: MlflowClient, experiment: str, key: str) -> Run | None:
    """Return a run of `key` whose parent was deleted from MLflow."""
    runs = client.search_runs([experiment], f"tags.`{KEY}` = '{key}'")
    parents = {run.data.tags[PARENT] for run in runs if PARENT in run.data.tags}
    there = active(client, experiment, sorted(parents))
    return next((run for run in runs if run.data.tags.get(PARENT, "") in parents - there), None)


def create(
    client: MlflowClient, experiment: str, name: str, key: str, parent: str | None, began: float
) -> Run:
    """Create a run of `key` that began at `began` (Unix seconds), together with its tags."""
    tags = {
        KEY: key,
        "mlflow.user": _user(),
        "mlflow.source.name": "knife",
        "mlflow.source.type": "LOCAL",
    }
    if parent:
        tags[PARENT] = parent
    # If only the first response was lost, a retry by MLflow would create a second run.
    with one_try():
        return client.create_run(experiment, int(began * 1000), run_name=name, tags=tags)


class RemoteRun:
    """A run in MLflow. Every method sends only what MLflow lacks, so calls may be repeated.

    Every method raises if MLflow fails, or a GoneError if the run was deleted; afterwards call
    `forget`, since a failed request may have arrived all the same.

    Args:
        client, experiment: MLflow's.
        run: the run as it was found or created.
        refuse: called with what MLflow will never accept, and the error.

    Attributes:
        count: how many metrics, artifacts and so on were sent, by kind.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment: str,
        run: Run,
        refuse: Callable[[str, Exception], None],
    ) -> None:
        self.run_id: str = run.info.run_id
        self.count: Counter[str] = Counter()
        self._client = client
        self._experiment = experiment
        self._refuse = refuse
        self._known: _Known | None = _Known(run)

    def look(self) -> None:
        """Ask MLflow what it has of the run, as after it has refused something.

        Raises:
            GoneError: the run was deleted.
        """
        try:
            run = self._client.get_run(self.run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise GoneError(restorable=False) from error
            raise
        if run.info.lifecycle_stage != "active":
            raise GoneError(restorable=True)
        self._known = _Known(run)

    def forget(self) -> None:
        """Ask MLflow what it has before anything else is sent."""
        self._known = None

    def describe(self, params: dict[str, str], tags: dict[str, str]) -> None:
        """Set tags, and the params that the run lacks. A param cannot change in MLflow: if one has
        (workers, say), the old value stays and the tag `knife.changed` shows both."""
        had = self._has.params
        new = [Param(key, value) for key, value in params.items() if key not in had]
        changed = {key: value for key, value in params.items() if had.get(key, value) != value}
        if changed:
            words = "; ".join(f"{key}: {had[key]} -> {changed[key]}" for key in changed)
            tags = tags | to_tags({"knife.changed": words})
        *others, last = [
            new[start : start + PARAMS_A_BATCH] for start in range(0, len(new), PARAMS_A_BATCH)
        ] or [[]]
        for batch in others:
            self._client.log_batch(self.run_id, params=batch)
        self._tag(tags, last)
        had |= {param.key: param.value for param in new}
        self.count["params"] += len(new)

    def inputs(self, sets: Iterable[DataSet]) -> None:
        """Record the data sets that the run reads."""
        new = [each for each in sets if (_set_name(each), each.digest) not in self._has.inputs]
        if new:
            self._client.log_inputs(self.run_id, [_input(each) for each in new])
            self._has.inputs |= {(_set_name(each), each.digest) for each in new}

    def rows(self, rows: Iterable[Row]) -> None:
        """Log rows, in step order; of each metric, only steps after its newest in MLflow."""
        newest = dict(self._has.newest)
        metrics = []
        for row in rows:
            for name, value in row["metrics"].items():
                if row["step"] > newest.get(name, (-math.inf, 0.0))[0]:
                    metrics.append(Metric(name, value, int(row["time"] * 1000), row["step"]))
                    newest[name] = (row["step"], value)
        self._log(metrics)
        self._has.newest = newest

    def summary(self, metrics: dict[str, float], moment: float) -> None:
        """Log results of the whole run, at step 0."""
        known = self._has.newest
        new = [
            # Of two values at a step, MLflow shows the later one.
            Metric(name, value, int(1000 * (time.time() if name in known else moment)), 0)
            for name, value in metrics.items()
            if known.get(name) != (0, value)
        ]
        self._log(new)
        known.update({metric.key: (0, metric.value) for metric in new})

    def text(self, name: str, text: str) -> None:
        """Upload a text as an artifact."""
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        if self._has.files.get(name) != digest:
            self._client.log_text(self.run_id, text, name)
            self._uploaded(name, digest)

    def file(self, path: Path) -> None:
        """Upload a file as an artifact.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:8]
        if self._has.files.get(path.name) != digest:
            self._client.log_artifact(self.run_id, str(path))
            self._uploaded(path.name, digest)

    def model(self, folder: Path, name: str) -> None:
        """Log a student's folder as a model, once."""
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder")
        self.count["models"] += log_model(self._client, self._experiment, self.run_id, folder, name)

    def register(self, name: str, registered: str) -> None:
        """Make the logged model `name` the champion of a registered model."""
        number = register(self._client, self._experiment, self.run_id, name, registered)
        self._tag({"knife.registered": f"{registered} version {number}"})

    def end(self, status: str, ended: float | None) -> None:
        """Set the status, and when the run ended (Unix seconds; None while it is RUNNING)."""
        wanted = (status, None if ended is None else int(ended * 1000))
        if self._has.status == wanted:
            return
        try:
            if ended is None:
                self._client.update_run(self.run_id, status=status)
            else:
                self._client.set_terminated(self.run_id, status, wanted[1])
        except MlflowException as error:
            if error.error_code in FINAL:
                self.look()
            raise
        self._has.status = wanted

    def shows(self, status: str) -> bool:
        """Whether MLflow is known to show this status."""
        return self._known is not None and self._known.status[0] == status

    @property
    def _has(self) -> _Known:
        if self._known is None:
            self.look()
        assert self._known
        return self._known

    def _tag(self, tags: dict[str, str], params: Sequence[Param] = ()) -> None:
        """Set tags, and in the same request params that the run lacks."""
        new = {key: value for key, value in tags.items() if self._has.tags.get(key) != value}
        if new or params:
            sent = [RunTag(*pair) for pair in new.items()]
            self._client.log_batch(self.run_id, params=params, tags=sent)
            self._has.tags |= new

    def _uploaded(self, name: str, digest: str) -> None:
        self._has.files[name] = digest
        self._tag({FILES: strict_json.dumps(self._has.files)})
        self.count["artifacts"] += 1

    def _log(self, metrics: list[Metric]) -> None:
        for start in range(0, len(metrics), METRICS_A_BATCH):
            batch = metrics[start : start + METRICS_A_BATCH]
            try:
                self._client.log_batch(self.run_id, metrics=batch)
                self.count["metrics"] += len(batch)
            except MlflowException as error:
                if error.error_code not in FINAL:
                    raise
                self.look()
                self._log_apart(batch, error)

    def _log_apart(self, batch: list[Metric], error: Exception) -> None:
        """Send a batch by metric, since MLflow refuses all of it for one bad metric."""
        names = {metric.key for metric in batch}
        if len(names) == 1:
            self._refuse(f"the metric {names.pop()!r}", error)
        else:
            for name in sorted(names):
                self._log([metric for metric in batch if metric.key == name])


class _Known:
    """What MLflow is known to have of a run."""

    def __init__(self, run: Run) -> None:
        data: Any = run.data
        self.params: dict[str, str] = dict(data.params)
        self.tags: dict[str, str] = dict(data.tags)
        # Last step and value of each metric. The public get_metric_history takes 5 s for 100,000
        # points.
        self.newest = {m.key: (m.step, m.value) for m in newest_metrics(data)}
        sets = run.inputs.dataset_inputs if run.inputs else []
        self.inputs = {(each.dataset.name, each.dataset.digest) for each in sets}
        self.files: dict[str, str] = json.loads(self.tags.get(FILES, "{}"))
        self.status: tuple[str, int | None] = (run.info.status, run.info.end_time or None)


def _set_name(data: DataSet) -> str:
    return f"{data.name} {data.split}"


def _input(data: DataSet) -> DatasetInput:
    profile = {"num_rows": data.examples, "rationales": data.rationales}
    kind, colon, _ = data.place.partition("://")
    dataset = Dataset(
        name=_set_name(data),
        digest=data.digest,
        source_type=kind if colon else "local",
        source=strict_json.dumps({"uri": data.place}),
        profile=strict_json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", data.split)])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # In a container, the user id may have no name.
        return "unknown"
