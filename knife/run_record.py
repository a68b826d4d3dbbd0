"""What a run's folder says of how the run was made: its stages, and every start of the command."""

import json
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import knife
from knife.exits import Terminated
from knife.plan import Plan, inputs
from knife.recording import git_tags
from knife.track.secrets import redact
from knife.train.checkpoint import write_json
from knife.train.stage import Stage

NAME = "run.json"
_LIBRARIES = ("torch", "transformers", "deepspeed", "ray", "mlflow")


class RunRecord:
    """The record in a run's folder, whole at every moment."""

    def __init__(self, folder: Path, plan: Plan, missing: list[Stage]) -> None:
        """Note a start that will make the `missing` stages."""
        self._path = folder / NAME
        starts = json.loads(self._path.read_text())["starts"] if self._path.is_file() else []
        self._start = {
            "command": redact(_command()),
            "time": time.time(),
            "made": [stage.key for stage in missing],
            "ended": None,
            "status": "killed",
        }
        self._values = _plan_record(plan) | {
            "versions": {"knife": knife.__version__, "python": platform.python_version()}
            | {name: version(name) for name in _LIBRARIES},
            "git": git_tags(),
            "starts": [*starts, self._start],
        }
        write_json(self._path, self._values)

    def end(self, status: str) -> None:
        """Note how the start ended; one that was killed outright notes nothing more."""
        self._start |= {"ended": time.time(), "status": status}
        write_json(self._path, self._values)

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Note what the work inside ends by, if it does not come to its end."""
        try:
            yield
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | Terminated)
            self.end("stopped" if stopped else f"failed: {redact(str(error)[:500])}")
            raise


def _command() -> str:
    """How this process was started: as the command, or as a program that calls `knife.run`."""
    program = Path(sys.argv[0])
    called = program.name == "knife" or program.parts[-2:] == ("knife", "__main__.py")
    return shlex.join(["knife", *sys.argv[1:]] if called else ["python", *sys.argv])


def _plan_record(plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.config.name,
        "key": plan.key,
        "notes": plan.notes,
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
            }
            for member in plan.members
        ],
        "teacher": plan.teacher.key if plan.teacher else None,
        "ceiling": {name: stage.key for name, stage in plan.ceiling.items()},
    }
