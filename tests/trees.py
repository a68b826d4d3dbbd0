"""Made-up runs for MLflow to show, and the journals that they read."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from knife.store.store import Store
from knife.track.node import RunNode
from knife.track.tracker import Tracker
from knife.train.journal import Row

BEGAN, ENDED = 1e9, 2e9
STAGE = ("student", "k")


def node(name: str, *children: RunNode, **values: Any) -> RunNode:
    """A run that is at work, or has ended if it is given another status."""
    if values.get("status", "RUNNING") != "RUNNING":
        values = {"ended": ENDED} | values
    defaults: dict[str, Any] = {
        "key": f"key-of-{name.replace(' ', '-')}",
        "began": BEGAN,
        "status": "RUNNING",
        "params": {},
        "tags": {},
        "summary": {},
        "texts": {},
    }
    return RunNode(name=name, children=children, **(defaults | values))


def rows(first: int, last: int, seconds: float = 1e9) -> list[Row]:
    """Rows of a training's journal."""
    return [
        {"step": s, "epoch": s / 10, "time": seconds + s, "metrics": {"loss": 1 / s}}
        for s in range(first, last + 1)
    ]


def write(path: Path, content: Sequence[Row], mode: str = "w") -> None:
    """Write rows as a journal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode) as file:
        file.writelines(json.dumps(row) + "\n" for row in content)


def journal(store: Store, stage: tuple[str, str] = STAGE, *, work: bool = True) -> Path:
    """The journal of a stage that is at work or done."""
    folder = store.root / "work" / "-".join(stage) if work else store.root.joinpath(*stage)
    return folder / "journal.jsonl"


class Shown:
    """A run that a tracker shows: change `root`, and MLflow gets it."""

    def __init__(self, tracker: Tracker, store: Store, root: RunNode) -> None:
        self.tracker = tracker
        self.root = root
        self.folder = store.root / "runs" / root.key
        self.folder.mkdir(parents=True, exist_ok=True)
        tracker.show(self.folder, lambda: self.root)

    def change(self, **values: Any) -> None:
        """Change the run itself."""
        self.root = replace(self.root, **values)

    def runs(self) -> dict[str, Run]:
        """MLflow's runs of the experiment, by name."""
        return runs(self.tracker)

    def steps(self, name: str, metric: str = "train/loss") -> list[int]:
        """The steps at which MLflow has a metric of a run."""
        run_id = self.runs()[name].info.run_id
        return [m.step for m in self.tracker.client.get_metric_history(run_id, metric)]


def runs(tracker: Tracker) -> dict[str, Run]:
    """All runs of the tracker's experiment by name."""
    found = tracker.client.search_runs([tracker.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}
