"""A run from config to verdict: plan, make what the store lacks, track, conclude."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import knife
from knife.config import RunConfig, Scale
from knife.data.jsonl import write_examples
from knife.plan import Plan, data_files, inputs, needed, plan_run, store_folder
from knife.report.verdict import Ceiling, Verdict, verdict
from knife.store import Store, disk_faults
from knife.train.checkpoint import write_json
from knife.train.context import PlainContext
from knife.train.predictions import PREDICTIONS
from knife.train.stage import EvaluateStage, Stage

# MLflow and DeepSpeed take seconds to import, and whoever asks what is missing needs neither.
if TYPE_CHECKING:
    from knife.track.follow import Follower
    from knife.track.run import TrackedRun


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        plan: the run as stages.
        made: the stages that this start made; empty when the store had all of them.
        verdict: the comparison of methods.
        folder: where config and verdict lie in the store.
        tracking: MLflow's uri, without secrets, and the run's id.
        unsent: what MLflow did not get, one line each.
    """

    plan: Plan
    made: list[Stage]
    verdict: Verdict
    folder: Path
    tracking: tuple[str, str | None]
    unsent: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        store = self.plan.config.store
        return {
            "name": self.plan.config.name,
            "key": self.plan.key,
            "store": str(Path(store).resolve()),
            "mlflow": {"uri": self.tracking[0], "run_id": self.tracking[1]},
            "made": [{"kind": s.kind, "key": s.key, "label": s.label} for s in self.made],
            "students": [
                {
                    "method": m.method,
                    "seed": m.seed,
                    "key": m.student.key,
                    "folder": str(self.folder.parents[1] / "student" / m.student.key),
                }
                for m in self.plan.members
            ],
            "notes": self.plan.notes,
            "verdict": self.verdict.to_dict(),
        }


# Called while stages are made: shows progress from the follower until the context ends.
Display = Callable[[list[Stage], Plan, "Follower"], Any]


def missing_stages(plan: Plan, store: Store, *, repair: bool) -> tuple[list[Stage], list[str]]:
    """The stages that the store lacks, and a line for each artifact that is damaged.

    With `repair`, damaged artifacts are taken out of the store, and so are made again.
    """
    have = {(s.kind, s.key) for s in plan.stages if store.has(s.kind, s.key)}
    checked: set[tuple[str, str]] = set()
    notes: list[str] = []
    while True:
        missing = needed(plan.stages, have)
        read = {place for stage in missing for place in inputs(stage)}
        read |= {(s.kind, s.key) for s in plan.stages if s.kind == "evaluate"}
        fresh = (read & have) - checked
        if not fresh:
            return missing, notes
        for place in sorted(fresh):
            checked.add(place)
            damaged = store.damage(*place)
            if damaged:
                have.discard(place)
                notes.append(f"{'/'.join(place)} is damaged ({', '.join(damaged)}): made again")
                if repair:
                    store.discard(*place)


def run(config: RunConfig, display: Display) -> Result:
    """Make a run: only what the store lacks, all of it in one worker group.

    `display(stages, plan, follower)` is a context manager that shows stages as they are made.

    Raises:
        UserError: where config, data, models, store or cluster are at fault.
    """
    from knife.track.follow import Follower
    from knife.track.tracker import Tracker

    plan = plan_run(config)
    store = Store(store_folder(config))
    with disk_faults(store.root):
        for key in plan.data:
            _publish_data(store, key, plan)
        missing, damaged = missing_stages(plan, store, repair=True)
        plan.notes += damaged
        folder = store.root / "runs" / f"{config.name}-{plan.key}"
        folder.mkdir(parents=True, exist_ok=True)
        resolved = config.model_dump(mode="json")
        write_json(folder / "config.json", resolved)
        with Tracker(config.track.uri, store.root, config.track.experiment) as tracker:
            parent = tracker.open_run(config.name, plan.key, resolved, _tags(plan))
            with _status(parent), Follower(store.root) as follower:
                _follow(plan, follower, parent)
                if missing:
                    with display(missing, plan, follower):
                        _make(missing, store.root, config.scale)
                found = conclude(plan, store)
                _record(plan, store, found, parent, folder)
        unsent = tracker.unsent()
    return Result(plan, missing, found, folder, (tracker.uri, parent.run_id), unsent)


def _make(stages: list[Stage], root: Path, scale: Scale) -> None:
    if scale.launcher == "ray":
        from knife.cluster.launch import launch

        launch(stages, root, scale)
    else:
        from knife.train.stages import run_stages

        with PlainContext() as context:
            run_stages(stages, root, scale, context)


def conclude(plan: Plan, store: Store) -> Verdict:
    """The verdict, from the stored predictions alone."""
    rights: dict[str, dict[int, dict[str, bool]]] = {}
    for member in plan.members:
        right = {row["id"]: row["right"] for row in read_predictions(store, member.evaluate)}
        rights.setdefault(member.method, {})[member.seed] = right
    ceiling = None
    if plan.ceiling:
        accuracy = {name: _accuracy(store, stage) for name, stage in plan.ceiling.items()}
        ceiling = Ceiling(accuracy.get("with"), accuracy["without"])
    baseline = "finetune" if "finetune" in rights else next(iter(rights))
    return verdict(rights, baseline, ceiling)


def read_predictions(store: Store, stage: EvaluateStage) -> list[dict[str, Any]]:
    """The rows that an evaluation wrote, one an example."""
    path = store.path(stage.kind, stage.key) / PREDICTIONS
    return [json.loads(line) for line in path.read_text().splitlines()]


def _accuracy(store: Store, stage: EvaluateStage) -> float:
    rows = read_predictions(store, stage)
    return sum(bool(row["right"]) for row in rows) / len(rows)


def _publish_data(store: Store, key: str, plan: Plan) -> None:
    with store.lock("data", key):
        if store.has("data", key) and not store.damage("data", key):
            return
        if store.has("data", key):
            store.discard("data", key)
        work = store.work("data", key)
        splits = plan.data[key]
        for name, examples in data_files(splits).items():
            write_examples(work / f"{name}.jsonl", examples)
        ids = {name: [e.id for e in examples] for name, examples in data_files(splits).items()}
        write_json(work / "ids.json", ids)
        store.publish("data", key, {"data": key, "settings": plan.config.data.model_dump()})


@contextmanager
def _status(run: "TrackedRun") -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        run.finish("KILLED")
        raise
    except BaseException:
        run.finish("FAILED")
        raise
    run.finish("FINISHED")


def _follow(plan: Plan, follower: "Follower", parent: "TrackedRun") -> None:
    """Nested runs: the teacher's, and one for each method and seed."""
    if plan.teacher:
        teacher = plan.teacher
        depends = teacher.depends
        run = parent.child("teacher", teacher.key, depends, _stage_tags(teacher, "teacher"))
        follower.follow("teacher", teacher.key, run)
    for stage in plan.stages:
        if stage.kind in ("teacher", "states") and stage is not plan.teacher:
            follower.follow(stage.kind, stage.key, None)
    for member in plan.members:
        student = member.student
        params = student.depends | {"method": member.method}
        name = f"{member.method} seed {member.seed}"
        run = parent.child(
            name, f"{member.method}-{student.key}", params, _stage_tags(student, member.method)
        )
        follower.follow("student", student.key, run)
        follower.follow("evaluate", member.evaluate.key, run)


def _record(plan: Plan, store: Store, found: Verdict, parent: "TrackedRun", folder: Path) -> None:
    """Predictions, students and the verdict; MLflow has each of them once however often told."""
    values = found.to_dict()
    write_json(folder / "verdict.json", values)
    parent.artifact(folder / "verdict.json")
    summary = {f"test_accuracy.{m.method}": m.accuracy for m in found.methods}
    parent.log_summary(summary)
    for member in plan.members:
        student = member.student
        params = student.depends | {"method": member.method}
        name = f"{member.method} seed {member.seed}"
        run = parent.child(name, f"{member.method}-{student.key}", params, {})
        run.artifact(store.path("evaluate", member.evaluate.key) / PREDICTIONS)
        run.model(store.path("student", student.key) / "model", name)
        run.finish("FINISHED")
    if plan.teacher:
        run = parent.child("teacher", plan.teacher.key, {}, {})
        for name, stage in plan.ceiling.items():
            accuracy = _accuracy(store, stage)
            run.log_summary({f"test_accuracy_{name}_rationale": accuracy})
        run.finish("FINISHED")


def _stage_tags(stage: Stage, method: str) -> dict[str, str]:
    return {"knife.method": method, "knife.fingerprint": stage.key, "knife.data": stage.data}


def _tags(plan: Plan) -> dict[str, str]:
    tags = {
        f"knife.version.{name}": version(name)
        for name in ("torch", "transformers", "deepspeed", "ray")
    }
    tags |= {"knife.version": knife.__version__, "knife.fingerprint": plan.key}
    tags["knife.data"] = ",".join(plan.data)
    tags["knife.data.source"] = plan.config.data.source
    return tags | _git()


def _git() -> dict[str, str]:
    """The commit of the folder that the run was started in, and whether it has changes."""

    def ask(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        tags = {"mlflow.source.git.commit": ask("rev-parse", "HEAD")}
        tags["knife.git.changed"] = str(bool(ask("status", "--porcelain"))).lower()
    except (OSError, subprocess.SubprocessError):
        return {}
    return tags
