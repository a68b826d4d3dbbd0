"""The record in a sweep's folder: its settings, its starts, and what each trial shares."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knife.pipeline.record import Record
from knife.plan.stage import StatesStage, TeacherStage
from knife.store.store import Store
from knife.track.params import to_params
from knife.track.secrets import redact_values
from knife.tune.search.space import Point, Space

# It imports torch, which reading a record does not need.
if TYPE_CHECKING:
    from knife.plan.plan import Plan

ABOUT = "sweep.json"
# Increased whenever sweeps cannot resume from what earlier versions left in the folder.
SWEEP_VERSION = 4


class SweepAbout(Record):
    """The record in a sweep's folder."""

    def __init__(self, folder: Path, space: Space, key: str, plan: Plan) -> None:
        """Record a start of the sweep; `plan` is that of one of its trials."""
        from knife.track.describe import run_tags

        track = plan.config.track
        about = {
            "version": SWEEP_VERSION,
            "key": key,
            "name": space.sweep.name,
            "sweep": redact_values(space.sweep.model_dump(mode="json")),
            "base": redact_values(space.base),
            "tags": run_tags(plan),
            "register": track.register if track else None,
        }
        super().__init__(folder / ABOUT, about, None)

    def started(self, number: int, point: Point, plan: Plan | None, phase: str) -> None:
        """Note that a trial starts or restarts, in the search or for more seeds: when, what it
        shares with others, and its students, if it could be planned."""
        trials = self.values.setdefault("trials", {})
        trial = trials.setdefault(
            str(number), {"starts": [], "shares": [], "point": point, "students": {}}
        )
        now = time.time()
        if phase == "search":
            trial["starts"].append(now)
            trial["shares"] = [
                [stage.kind, stage.key]
                for stage in (plan.stages if plan else [])
                if isinstance(stage, TeacherStage | StatesStage)
            ]
        if plan:
            self._students(trial["students"], plan, phase, now)
        self.write()

    def _students(self, students: dict[str, Any], plan: Plan, phase: str, now: float) -> None:
        from knife.track.describe import data_sets, member_params

        data, store = self.values.setdefault("data", {}), Store(plan.config.store, write=False)
        for member in plan.members:
            key = member.student.data
            if key not in data:
                data[key] = list(map(asdict, data_sets(plan, key, store)))
            students[member.student.key] = {
                "phase": phase,
                "began": now,
                "data": key,
                "params": to_params(member_params(plan, member)),
            }
