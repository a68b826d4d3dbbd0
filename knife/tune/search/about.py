"""The record in a sweep's folder: its settings, its starts, and what each trial shares."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from knife.pipeline.record import Record
from knife.plan.stage import StatesStage, TeacherStage
from knife.track.secrets import redact_values
from knife.tune.search.space import Space

# It imports torch, which reading a record does not need.
if TYPE_CHECKING:
    from knife.plan.plan import Plan

ABOUT = "sweep.json"
# Increased whenever sweeps cannot resume from what earlier versions left in the folder.
SWEEP_VERSION = 3


class SweepAbout(Record):
    """The record in a sweep's folder."""

    def __init__(self, folder: Path, space: Space, key: str) -> None:
        about = {
            "version": SWEEP_VERSION,
            "key": key,
            "name": space.sweep.name,
            "sweep": redact_values(space.sweep.model_dump(mode="json")),
            "base": redact_values(space.base),
        }
        super().__init__(folder / ABOUT, about, None)

    def started(self, number: int, plan: Plan | None) -> None:
        """Note when a trial of the search starts or restarts, and what it shares."""
        trials = self.values.setdefault("trials", {})
        trial = trials.setdefault(str(number), {"starts": [], "shares": []})
        trial["starts"].append(time.time())
        stages = plan.stages if plan else []
        trial["shares"] = [
            [stage.kind, stage.key]
            for stage in stages
            if isinstance(stage, TeacherStage | StatesStage)
        ]
        self.write()
