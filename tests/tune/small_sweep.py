"""A small sweep for tests: four students of one teacher, half a minute on two cores."""

from pathlib import Path
from typing import Any

import yaml
from small_run import SMALL

from knife.errors import UserError
from knife.tune.command import plan_file
from knife.tune.sweep_plan import SweepPlan

RATE, WEIGHT = "student.learning_rate", "align.input.weight"
SWEEP: dict[str, Any] = {
    "name": "small",
    "base": "base.yaml",
    "space": {RATE: {"loguniform": [1e-3, 1e-2]}, WEIGHT: {"choice": [1, 30]}},
    "budget": {"trials": 4},
}


def write_sweep(folder: Path, *, without: str = "", **changes: Any) -> Path:
    """`SWEEP` with whole keys replaced, as a file beside its base; the store is there too."""
    base = {key: value for key, value in SMALL.items() if key != "scale"}
    (folder / "base.yaml").write_text(yaml.safe_dump(base | {"store": str(folder / "store")}))
    values = {key: value for key, value in (SWEEP | changes).items() if key != without}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def planned(folder: Path, *overrides: str, **changes: Any) -> SweepPlan:
    """The plan of `SWEEP` with changes and overrides."""
    return plan_file(write_sweep(folder, **changes), list(overrides))


def faults(folder: Path, *overrides: str, **changes: Any) -> list[str]:
    """What is wrong with it: every fault."""
    try:
        planned(folder, *overrides, **changes)
    except UserError as error:
        return error.faults
    return []
