"""A run in MLflow: found or created by its key, and sent everything once."""

from __future__ import annotations

import getpass
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
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
from knife.track.data_set import DataSet
from knife.track.logged_model import log_model, register
from knife.track.params import to_tags
from knife.train.journal import Row

KEY = "knife.key"
PARENT = "mlflow.parentRunId"
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
    """A run in MLflow. Calls may be repeated: what MLflow has is not sent twice.

    Every method raises if MLflow fails; afterwards call `forget`, since a failed request may have
    arrived all the same.

    Args:
        client, experiment, run_id: MLflow's.
        refuse: called with what MLflow will never accept, and the error.

    Attributes:
        count: how many metrics, artifacts and so on were sent, by kind.
    """

    def __init__(
        self,
        client: MlflowClient,
        experiment: str,
        run_id: str,
        refuse: Callable[[str, Exception], None],
        *,
        fresh: bool,
    ) -> None:
        self.run_id = run_id
        self.count: Counter[str] = Counter()
        self._client = client
        self._experiment = experiment
        self._refuse = refuse
        # Last step and value of each metric in MLflow; None if MLflow has to be asked.
        self._newest: dict[str, tuple[int, float]] | None = {} if fresh else None

    def look(self) -> None:
        """Check that MLflow still has the run, after it has refused something.

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

    def forget(self) -> None:
        """Ask MLflow for its metrics again before the next one is sent."""
        self._newest = None

    def describe(self, params: dict[str, str], tags: dict[str, str]) -> None:
        """Set tags, and the params that the run lacks. A param cannot change in MLflow: if one has
        (workers, say), the old value stays and the tag `knife.changed` shows both."""
        had = self._client.get_run(self.run_id).data.params
        new = [Param(key, value) for key, value in params.items() if key not in had]
        for start in range(0, len(new), PARAMS_A_BATCH):
            self._client.log_batch(self.run_id, params=new[start : start + PARAMS_A_BATCH])
        changed = {key: value for key, value in params.items() if had.get(key, value) != value}
        if changed:
            words = "; ".join(f"{key}: {had[key]} -> {changed[key]}" for key in changed)
            tags = tags | to_tags({"knife.changed": words})
        self.tag(tags)
        self.count["params"] += len(new)

    def tag(self, tags: dict[str, str]) -> None:
        """Set tags."""
        self._client.log_batch(self.run_id, tags=[RunTag(*pair) for pair in tags.items()])

    def inputs(self, sets: Iterable[DataSet]) -> None:
        """Record the data sets that the run reads."""
        self._client.log_inputs(self.run_id, [_input(each) for each in sets])

    def rows(self, rows: Iterable[Row]) -> None:
        """Log rows, in step order; of each metric, only steps after its newest in MLflow."""
        newest = dict(self._known())
        metrics = []
        for row in rows:
            for name, value in row["metrics"].items():
                if row["step"] > newest.get(name, (-math.inf, 0.0))[0]:
                    metrics.append(Metric(name, value, int(row["time"] * 1000), row["step"]))
                    newest[name] = (row["step"], value)
        self._log(metrics)
        self._newest = newest

    def summary(self, metrics: dict[str, float], moment: float) -> None:
        """Log results of the whole run, at step 0."""
        known = self._known()
        new = [
            Metric(name, value, int(moment * 1000), 0)
            for name, value in metrics.items()
            if name not in known or known[name] != (0, value)
        ]
        self._log(new)
        known.update({metric.key: (0, metric.value) for metric in new})

    def artifact(self, path: Path, folder: str) -> None:
        """Upload a file or a folder's content."""
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), folder or None)
        elif path.exists():
            self._client.log_artifact(self.run_id, str(path), folder or None)
        else:
            raise FileNotFoundError(f"{path} is not there")
        self.count["artifacts"] += 1

    def text(self, name: str, text: str) -> None:
        """Upload a text as an artifact."""
        self._client.log_text(self.run_id, text, name)
        self.count["artifacts"] += 1

    def model(self, folder: Path, name: str) -> None:
        """Log a student's folder as a model, once."""
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no folder")
        self.count["models"] += log_model(self._client, self._experiment, self.run_id, folder, name)

    def register(self, name: str, registered: str) -> None:
        """Make the logged model `name` the champion of a registered model."""
        number = register(self._client, self._experiment, self.run_id, name, registered)
        self.tag({"knife.registered": f"{registered} version {number}"})

    def end_strays(self, own: Collection[str]) -> None:
        """End the nested runs that are still running and not in `own`."""
        parents = [self.run_id]
        while parents:
            filters = f"tags.`{PARENT}` = '{parents.pop()}'"
            for run in self._client.search_runs([self._experiment], filters, max_results=10_000):
                parents.append(run.info.run_id)
                if run.info.run_id not in own and run.info.status == "RUNNING":
                    self._client.set_terminated(run.info.run_id, "KILLED")

    def finish(self, status: str, moment: float) -> None:
        """Set status and end time."""
        self._client.set_terminated(self.run_id, status, int(moment * 1000))

    def _known(self) -> dict[str, tuple[int, float]]:
        if self._newest is None:
            # One request; the public get_metric_history takes 5 s for 100,000 points.
            data: Any = self._client.get_run(self.run_id).data
            self._newest = {m.key: (m.step, m.value) for m in newest_metrics(data)}
        return self._newest

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


def _input(data: DataSet) -> DatasetInput:
    profile = {"num_rows": data.examples, "rationales": data.rationales}
    kind, colon, _ = data.place.partition("://")
    dataset = Dataset(
        name=f"{data.name} {data.split}",
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
