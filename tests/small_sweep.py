"""A small sweep for tests: four students of one teacher, half a minute on two cores."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_fixtures import Command, Ended
from mlflow.entities import Run
from recorded import run_tree
from shared import made_once
from small_run import SMALL

from knife.core.errors import UserError
from knife.launch.session import session
from knife.store.store import Store
from knife.tune.command import plan_file
from knife.tune.search.sweep_plan import SweepPlan

RATE, WEIGHT = "student.learning_rate", "align.input.weight"
SWEEP: dict[str, Any] = {
    "name": "small",
    "base": "base.yaml",
    "space": {RATE: {"loguniform": [1e-3, 1e-2]}, WEIGHT: {"choice": [1, 30]}},
    "budget": {"trials": 4},
}
# The third rate is far too high: a scheduler that judges by loss prunes it after an epoch.
FIRST = [{RATE: 4e-3, WEIGHT: 30}, {RATE: 5e-3, WEIGHT: 1}, {RATE: 2.0, WEIGHT: 1}]
PRUNED = 3
ASHA = {"name": "asha", "grace": 1, "reduction": 2}


def write_sweep(folder: Path, *, without: str = "", **changes: Any) -> Path:
    """Write `SWEEP` with top-level keys replaced, beside its base; the store is there too."""
    base = {key: value for key, value in SMALL.items() if key != "scale"}
    (folder / "base.yaml").write_text(yaml.safe_dump(base | {"store": str(folder / "store")}))
    values = {key: value for key, value in (SWEEP | changes).items() if key != without}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def planned(folder: Path, *overrides: str, **changes: Any) -> SweepPlan:
    """Return the plan of `SWEEP` with changes and overrides."""
    return plan_file(write_sweep(folder, **changes), list(overrides))


def errors(folder: Path, *overrides: str, **changes: Any) -> list[str]:
    """Return all errors in the sweep."""
    try:
        planned(folder, *overrides, **changes)
    except UserError as error:
        return error.errors
    return []


# Python runs it at the start of every process of a sweep: a training opens a journal to append.
_WATCH = """
import os, sys
def hook(event, args):
    if event == "open" and args[1] == "a" and str(args[0]).endswith("/journal.jsonl"):
        stage = os.path.dirname(args[0])
        beside_the_store = os.path.join(stage, "..", "..", "..", "trainings")
        with open(beside_the_store, "a") as file:
            print(os.path.basename(stage), file=file)
sys.addaudithook(hook)
"""


def watching(folder: Path) -> dict[str, str]:
    """The variable by which trainings are counted, beside their store, wherever Ray starts them."""
    (folder / "watch").mkdir(exist_ok=True)
    (folder / "watch" / "sitecustomize.py").write_text(_WATCH)
    paths = [str(folder / "watch"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": ":".join(paths)}


def watched(folder: Path) -> dict[str, str]:
    """The environment of a sweep whose trainings are counted."""
    kept = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")}
    return kept | watching(folder)


def trainings(folder: Path) -> Counter[str]:
    """How often each training of the folder's store was started: `teacher-KEY`, `states-KEY`,
    `student-KEY`."""
    path = folder / "trainings"
    return Counter(path.read_text().split() if path.is_file() else [])


def tune(path: Path, *words: str, seconds: float = 900) -> Ended:
    """Run a sweep as a command."""
    done = subprocess.run(
        [sys.executable, "-m", "knife", "tune", str(path), *words],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=watched(path.parent),
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Swept:
    """A sweep that has ended."""

    path: Path
    ended: Ended
    plan: SweepPlan
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store(self.path.parent / "store")

    @property
    def folder(self) -> Path:
        return self.path.parent / "store" / "sweeps" / self.plan.space.sweep.name

    @property
    def rows(self) -> dict[int, dict[str, Any]]:
        rows = json.loads((self.folder / "trials.json").read_text())
        return {row["number"]: row for row in rows}

    def tracked(self) -> tuple[Run, dict[str, Run]]:
        """Return the parent run in MLflow, and those of the trials."""
        found = json.loads((self.folder / "result.json").read_text())["mlflow"]
        return run_tree(found["uri"], found["run_id"])

    def left_in_work(self) -> list[str]:
        """Return what is left in the store's work folder, except Ray's own folders."""
        names = [path.name for path in (self.store.root / "work").iterdir()]
        return [name for name in names if not name.startswith("ray-")]


Tune = Callable[..., Ended]


def sweep(folder: Path, *words: str, by: Tune = tune, **changes: Any) -> Swept:
    """A sweep from start to end, in a process of its own, or `by` another way."""
    path = write_sweep(folder, **changes)
    ended = by(path, "--json", *words)
    result = json.loads(ended.out) if ended.status == 0 else {}
    return Swept(path, ended, plan_file(path, [w for w in words if "=" in w]), result)


@pytest.fixture(scope="module")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One session of Ray for all sweeps of a module in this process; trainings are counted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in watching(tmp_path_factory.mktemp("ray")).items():
            patch.setenv(name, value)
        with session(0):
            yield


@pytest.fixture
def tune_here(ray_session: None, command: Command, monkeypatch: pytest.MonkeyPatch) -> Tune:  # noqa: ARG001
    """`knife tune` in this process, its trials in the module's Ray session."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return lambda path, *words: command("tune", path, *words)


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Four trials, one of them pruned; more seeds for the best; the winner against finetune. Tests
    may read its store."""
    return made_once(tmp_path_factory, "swept", _swept)


def _swept(folder: Path) -> Swept:
    found = sweep(
        folder,
        metric="dev_loss",
        space={RATE: {"loguniform": [1e-3, 3]}, WEIGHT: {"choice": [1, 30]}},
        first=FIRST,
        scheduler=ASHA,
        seeds={"best": 1, "more": [1]},
        final={"seeds": [100]},
    )
    assert found.ended.status == 0, found.ended.err
    return found
