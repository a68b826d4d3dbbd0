"""The record in a run's or sweep's folder of how it was made: above all, every start of it."""

from __future__ import annotations

import json
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knife.core.atomic import write_json
from knife.core.exits import Terminated
from knife.core.version import __version__
from knife.plan.stage import inputs
from knife.track.params import to_params
from knife.track.provenance import LIBRARIES, git_tags
from knife.track.secrets import redact

# It imports torch, which reading a record does not need.
if TYPE_CHECKING:
    from knife.plan.plan import Plan
    from knife.store.store import Store


class Record:
    """The record in a run's or a sweep's folder, never half-written.

    Attributes:
        values: its contents.
        idle: whether this start has nothing to do and the one before it finished. Then nothing is
            recorded: commands and versions are those of the starts that made the results.
    """

    def __init__(self, path: Path, about: dict[str, Any], made: list[str] | None) -> None:
        """Record a start that will make the stages with the keys `made` (None: unknown), and what
        it is `about`."""
        self._path = path
        before = json.loads(path.read_text()) if path.is_file() else {}
        starts = before.get("starts", [])
        # An earlier version may have recorded less.
        whole = about.keys() <= before.keys()
        self.idle = made == [] and bool(starts) and starts[-1]["status"] == "finished" and whole
        self._start = {
            "command": redact(_command()),
            "time": time.time(),
            "made": made,
            "ended": None,
            "status": "killed",
        }
        self.values: dict[str, Any] = (
            before
            | about
            | {
                "versions": {"knife": __version__, "python": platform.python_version()}
                | {name: version(name) for name in (*LIBRARIES, "mlflow")},
                "git": git_tags(),
                "starts": [*starts, self._start],
            }
        )
        self.write()

    def write(self) -> None:
        """Write `values` to the file."""
        if not self.idle:
            write_json(self._path, self.values)

    def end(self, status: str) -> None:
        """Record how the start ended; one killed outright never gets here and stays "killed"."""
        self._start |= {"ended": time.time(), "status": status}
        self.write()

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Record how the work inside was stopped or failed, if it does not complete."""
        try:
            yield
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | Terminated)
            reason = redact(str(error))
            self._start["reason"] = reason[:2000] or type(error).__name__
            self.end("stopped" if stopped else f"failed: {reason[:500]}")
            raise


def _command() -> str:
    """Return how this process was started: as the command or a program that calls `knife.run`."""
    program = Path(sys.argv[0])
    called = program.name == "knife" or program.parts[-2:] == ("knife", "__main__.py")
    return shlex.join(["knife", *sys.argv[1:]] if called else ["python", *sys.argv])


def plan_record(plan: Plan, store: Store) -> dict[str, Any]:
    """Return what a run's record is about: stages, students, where weights come from, and what
    MLflow shows of them."""
    from knife.track.describe import (
        data_sets,
        member_params,
        run_params,
        run_tags,
        teacher_params,
    )

    return {
        "name": plan.config.name,
        "key": plan.key,
        "notes": plan.notes,
        "weights": {
            name: {"share": weights.share} | asdict(weights)
            for name, weights in plan.weights.items()
        },
        "stages": [
            {
                "kind": stage.kind,
                "key": stage.key,
                "label": stage.label,
                "data": stage.data,
                "reads": [key for _, key in inputs(stage)],
            }
            for stage in plan.stages
        ],
        "members": [
            {
                "method": member.method,
                "seed": member.seed,
                "student": member.student.key,
                "evaluate": member.evaluate.key,
                "data": member.student.data,
                "params": to_params(member_params(plan, member)),
            }
            for member in plan.members
        ],
        "teacher": plan.teacher.key if plan.teacher else None,
        "teacher_run": {
            "data": plan.teacher.data,
            "params": to_params(teacher_params(plan)),
        }
        if plan.teacher
        else None,
        "params": to_params(run_params(plan.config)),
        "tags": run_tags(plan),
        "written": plan.written,
        "data": {key: list(map(asdict, data_sets(plan, key, store))) for key in plan.data},
        "ceiling": {name: stage.key for name, stage in plan.ceiling.items()},
    }
