"""A run that is started as a command, to be killed and restarted."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import yaml
from small_run import SMALL, small_config, wait_for

from knife.config.overrides import merge
from knife.config.run import RunConfig
from knife.plan.plan import plan_run
from knife.plan.stage import Stage, StudentStage
from knife.store.store import Store

SECONDS = 900


@dataclass
class Job:
    """A run that is started as a command, repeatedly, on one store."""

    folder: Path
    changes: dict[str, Any]
    drivers: list[psutil.Popen] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def config(self) -> RunConfig:
        return small_config(self.store, **self.changes)

    def stages(self) -> dict[str, Stage]:
        """Return the stages by kind; of the evaluations, the student's."""
        plan = plan_run(self.config)
        (member,) = plan.members
        return {stage.kind: stage for stage in plan.stages} | {"evaluate": member.evaluate}

    @cached_property
    def student(self) -> StudentStage:
        """Return the student's stage, planned once, since conditions use it many times a second."""
        (member,) = plan_run(self.config).members
        return member.student

    def start(self, **scale: Any) -> psutil.Popen:
        """Start the driver. One stage is made at a time, so that it is known which one is hit."""
        scale = {"parallel": 1} | scale
        values = merge(merge(SMALL, self.changes), {"scale": scale, "store": str(self.store)})
        path = self.folder / f"run-{len(self.drivers)}.yaml"
        path.write_text(yaml.safe_dump(values))
        with path.with_suffix(".out").open("w") as out, path.with_suffix(".err").open("w") as err:
            command = [sys.executable, "-m", "knife", "run", str(path), "--json"]
            self.drivers.append(self._popen(*command, stdout=out, stderr=err))
        return self.drivers[-1]

    def _popen(self, *command: str, **options: Any) -> psutil.Popen:
        return psutil.Popen(command, **options)

    def output(self, suffix: str = ".out") -> str:
        """Return what the last driver has printed."""
        return (self.folder / f"run-{len(self.drivers) - 1}{suffix}").read_text()

    def wait_for(self, condition: Callable[[], object], pause: float = 0.005) -> None:
        """Poll until the condition holds, while the driver is running."""

        def reached() -> bool:
            found = bool(condition())
            assert found or self.drivers[-1].poll() is None, self.output(".err")
            return found

        wait_for(reached, SECONDS, pause)

    def workers(self, number: int) -> list[psutil.Process]:
        """Return Ray's train workers below the driver, once there are this many."""
        found: list[psutil.Process] = []

        def there() -> bool:
            found[:] = workers_below(self.drivers[-1])
            return len(found) == number

        self.wait_for(there, pause=0.1)
        return found

    def under_way(self, stage: Stage) -> bool:
        """Whether a stage is running and has something to resume from."""
        folder = self.store / "work" / f"{stage.kind}-{stage.key}"
        if stage.kind == "evaluate":
            # It only writes the predictions, at the very end.
            return folder.is_dir()
        pattern = "shard-*.safetensors" if stage.kind == "states" else "checkpoints/*/place.json"
        return any(True for _ in folder.glob(pattern))

    def published(self, stage: Stage) -> bool:
        return (self.store / stage.kind / stage.key).exists()

    def rows(self, stage: Stage) -> list[dict[str, Any]]:
        """Return the journal of a stage, finished or in progress."""
        for folder in (
            self.store / stage.kind / stage.key,
            self.store / "work" / f"{stage.kind}-{stage.key}",
        ):
            if (folder / "journal.jsonl").is_file():
                lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
                return [json.loads(line) for line in lines if line.endswith("\n")]
        return []

    def checkpoint_steps(self, stage: Stage) -> list[int]:
        """Return the steps of the checkpoints of a stage in progress."""
        folder = self.store / "work" / f"{stage.kind}-{stage.key}" / "checkpoints"
        return sorted(int(path.parent.name[5:]) for path in folder.glob("*/place.json"))

    def same_as(self, reference: Store) -> None:
        """Check that artifacts are complete, with the reference's weights, states, predictions."""
        store = Store(self.store)
        for stage in plan_run(self.config).stages:
            assert store.damage(stage.kind, stage.key) == []
            for path in store.path(stage.kind, stage.key).rglob("*"):
                results = ("predictions.jsonl", "states.json")
                if path.suffix == ".safetensors" or path.name in results:
                    other = reference.root / path.relative_to(store.root)
                    assert path.read_bytes() == other.read_bytes(), other

    def result(self) -> dict[str, Any]:
        """Wait for the driver's end, and return its JSON document."""
        status = self.drivers[-1].wait(SECONDS)
        assert status == 0, self.output(".err")
        found: dict[str, Any] = json.loads(self.output())
        return found

    def kill(self) -> None:
        """Kill what still runs."""
        for driver in alive(self.drivers):
            for process in [*driver.children(recursive=True), driver]:
                process.kill()


def workers_below(driver: psutil.Process) -> list[psutil.Process]:
    """Return Ray's train workers below a driver. A worker that starts a command is briefly two
    processes with one name: the younger one does not count."""
    found = {p.pid: p for p in driver.children(recursive=True) if is_worker(p)}
    return [process for process in found.values() if parent(process) not in found]


def parent(process: psutil.Process) -> int:
    """Return the parent's id; 0 if the process is gone."""
    try:
        return int(process.ppid())
    except psutil.Error:
        return 0


def is_worker(process: psutil.Process) -> bool:
    """Whether a process is a train worker of Ray."""
    try:
        return "RayTrainWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return those that still run; one that has ended may be a zombie."""
    left = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                left.append(process)
        except psutil.NoSuchProcess:
            continue
    return left


def gone(processes: Sequence[psutil.Process]) -> bool:
    """Whether none of the processes runs."""
    return not alive(processes)
