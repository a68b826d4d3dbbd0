"""What MLflow has of a run, and what the journals of its stages say."""

import json

from mlflow import MlflowClient
from mlflow.entities import Run

from knife.store import Store
from knife.train.stage import Stage

# Name, step and value of a metric.
Point = tuple[str, int, float]


def run_tree(uri: str, run_id: str) -> tuple[Run, dict[str, Run]]:
    """The parent run and its nested runs by name."""
    client = MlflowClient(uri)
    parent = client.get_run(run_id)
    query = f"tags.`mlflow.parentRunId` = '{run_id}'"
    nested = client.search_runs([parent.info.experiment_id], query)
    assert len({run.info.run_name for run in nested}) == len(nested)
    return parent, {run.info.run_name: run for run in nested}


def points(uri: str, run: Run) -> list[Point]:
    """Every value that MLflow has of every metric of a run."""
    client = MlflowClient(uri)
    return sorted(
        (name, metric.step, metric.value)
        for name in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, name)
    )


def journal_points(store: Store, *stages: Stage) -> list[Point]:
    """All metrics of the stages' journals, a training's `epoch` as one of them."""
    found = []
    for stage in stages:
        path = store.path(stage.kind, stage.key) / "journal.jsonl"
        for line in path.read_text().splitlines():
            row = json.loads(line)
            metrics = row["metrics"] | ({"epoch": row["epoch"]} if "epoch" in row else {})
            found += [(name, row["step"], value) for name, value in metrics.items()]
    # Two rows of one step, of training and of dev, have one epoch.
    return sorted(set(found))


def timeless(found: list[Point]) -> list[Point]:
    """Without the metric that hangs on the clock."""
    return [point for point in found if point[0] != "examples_per_second"]
