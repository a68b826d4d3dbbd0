"""What MLflow has of a run, and what the journals of its stages contain."""

import json

from mlflow import MlflowClient
from mlflow.entities import Run

from knife.plan.stage import Stage
from knife.store.store import Store
from knife.track.curves import Curves
from knife.train.journal import Position, read_rows

# Name, step and value of a metric.
Point = tuple[str, int, float]


def run_tree(uri: str, run_id: str) -> tuple[Run, dict[str, Run]]:
    """Return the parent run and its nested runs by name."""
    client = MlflowClient(uri)
    parent = client.get_run(run_id)
    query = f"tags.`mlflow.parentRunId` = '{run_id}'"
    nested = client.search_runs([parent.info.experiment_id], query)
    assert len({run.info.run_name for run in nested}) == len(nested)
    return parent, {run.info.run_name: run for run in nested}


def points(uri: str, run: Run) -> list[Point]:
    """Return every value that MLflow has of every metric of a run."""
    client = MlflowClient(uri)
    return sorted(
        (name, metric.step, metric.value)
        for name in run.data.metrics
        for metric in client.get_metric_history(run.info.run_id, name)
    )


def journal_points(store: Store, *stages: Stage, ended: bool = True) -> list[Point]:
    """Return what MLflow must have of stages: the curves of their journals, and their results."""
    found = []
    for stage in stages:
        folder = store.path(stage.kind, stage.key)
        rows, _ = read_rows(folder / "journal.jsonl", Position())
        for row in Curves().rows(rows):
            found += [(name, row["step"], value) for name, value in row["metrics"].items()]
        if ended and (folder / "trained.json").is_file():
            trained = json.loads((folder / "trained.json").read_text())
            found += [(name, 0, trained[name]) for name in ("dev_accuracy", "dev_loss")]
            cost = ("seconds", "steps", "memory_mib")
            found += [(f"train_{name}", 0, trained[name]) for name in cost]
    return sorted(found)


def timeless(found: list[Point]) -> list[Point]:
    """Drop the metrics that depend on clock and machine."""
    rates = ("train/examples_per_second", "train/tokens_per_second")
    clock = (*rates, "train_seconds", "train_memory_mib")
    return [point for point in found if point[0] not in clock]
