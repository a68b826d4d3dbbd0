"""A run in MLflow: a parent run, with nested runs for the teacher and each method and seed."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from knife.plan.plan import Member, Plan
from knife.plan.stage import Stage
from knife.stats.verdict import Verdict
from knife.store.store import Store
from knife.track.describe import (
    NOTE,
    data_sets,
    ended_note,
    hosts_tag,
    member_params,
    teacher_params,
)
from knife.train.results import PREDICTIONS, accuracy

# MLflow takes seconds to import, and reading predictions does not need it.
if TYPE_CHECKING:
    from knife.track.run import TrackedRun
    from knife.train.follow import Follower


def nested_runs(plan: Plan, parent: TrackedRun, store: Store) -> dict[str, TrackedRun]:
    """Open the nested runs `teacher` and `<method> seed <seed>`, with data sets; return them by
    name."""
    runs = {}
    sets = {key: data_sets(plan, key, store) for key in plan.data}
    parent.inputs([each for own in sets.values() for each in own])
    if plan.teacher:
        stage = plan.teacher
        tags = _tags(stage, "teacher")
        runs["teacher"] = parent.child("teacher", stage.key, teacher_params(plan), tags)
        runs["teacher"].inputs(sets[stage.data])
    for member in plan.members:
        student = member.student
        key = f"{member.method}-{student.key}"
        tags = _tags(student, member.method)
        run = parent.child(_name(member), key, member_params(plan, member), tags)
        run.inputs(sets[student.data])
        runs[_name(member)] = run
    return runs


def follow(plan: Plan, runs: dict[str, TrackedRun], follower: Follower) -> None:
    """Have the follower send each stage's journal to its nested run."""
    for stage in plan.stages:
        if stage.kind in ("teacher", "states"):
            own = stage is plan.teacher
            follower.follow(stage.kind, stage.key, runs["teacher"] if own else None)
    for stage in plan.ceiling.values():
        follower.follow("evaluate", stage.key, None)
    for member in plan.members:
        follower.follow("student", member.student.key, runs[_name(member)])
        follower.follow("evaluate", member.evaluate.key, runs[_name(member)])


def record(
    plan: Plan,
    store: Store,
    verdict: Verdict,
    parent: TrackedRun,
    runs: dict[str, TrackedRun],
    files: list[Path],
) -> None:
    """Record the verdict, the files that show it, predictions and students; repeated calls do not
    record them twice."""
    for path in files:
        parent.artifact(path)
    parent.log_summary(verdict_metrics(verdict))
    for member in plan.members:
        run = runs[_name(member)]
        run.log_summary(trained_metrics(store, "student", member.student.key))
        run.artifact(store.path("evaluate", member.evaluate.key) / PREDICTIONS)
        student = store.path("student", member.student.key)
        run.artifact(student / "README.md")
        run.model(student / "model", _name(member))
        run.finish("FINISHED")
    best = champion(plan, store)
    registered = plan.config.track.register
    tags = {"knife.champion": _name(best), "knife.champion.key": best.student.key}
    tags[NOTE] = ended_note(verdict, _name(best), registered)
    parent.tag(tags | hosts_tag(plan, store))
    if registered:
        runs[_name(best)].register(_name(best), registered)
    if plan.teacher:
        runs["teacher"].log_summary(trained_metrics(store, "teacher", plan.teacher.key))
        for name, stage in plan.ceiling.items():
            value = accuracy(store, stage)
            runs["teacher"].log_summary({f"test_accuracy_{name}_rationale": value})
        runs["teacher"].finish("FINISHED")


def champion(plan: Plan, store: Store) -> Member:
    """Return the student to use: the best on dev, of the method with the best mean on dev."""
    dev: dict[str, list[tuple[float, float]]] = {}
    scores: list[tuple[float, float]] = []
    for member in plan.members:
        values = trained_metrics(store, "student", member.student.key)
        scores.append((values["dev_accuracy"], -values["dev_loss"]))
        dev.setdefault(member.method, []).append(scores[-1])
    mean = {
        name: [fmean(values) for values in zip(*each, strict=True)] for name, each in dev.items()
    }
    best = max(mean, key=mean.__getitem__)
    own = [pair for pair in zip(scores, plan.members, strict=True) if pair[1].method == best]
    return max(own, key=lambda pair: pair[0])[1]


def trained_metrics(store: Store, kind: str, key: str) -> dict[str, float]:
    """Return a training's metrics: its best evaluation on dev, and what it cost."""
    trained = json.loads(store.read(kind, key, "trained.json"))
    named = {name: name for name in ("dev_accuracy", "dev_loss")}
    named |= {n: f"train_{n}" for n in ("seconds", "steps", "memory_mib", "gpu_memory_mib")}
    return {new: trained[name] for name, new in named.items() if name in trained}


def verdict_metrics(verdict: Verdict) -> dict[str, float]:
    """Return the verdict's numbers, named by method; unknown ones are left out."""
    found: dict[str, float | None] = {}
    for each in verdict.methods:
        values = {"test_accuracy": each.accuracy, "test_accuracy_low": each.low}
        values["test_accuracy_high"] = each.high
        if each.difference:
            values |= {"gain_points": each.difference.points, "p": each.difference.p_adjusted}
            values |= {"gain_low_points": each.difference.low}
            values |= {"gain_high_points": each.difference.high}
        found |= {f"{name}.{each.method}": value for name, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}


def finish_done(plan: Plan, store: Store, runs: dict[str, TrackedRun]) -> None:
    """Finish the nested runs whose work is done, of a run that is interrupted."""
    if plan.teacher and store.has("teacher", plan.teacher.key):
        runs["teacher"].finish("FINISHED")
    for member in plan.members:
        if store.has("evaluate", member.evaluate.key):
            runs[_name(member)].finish("FINISHED")


def _name(member: Member) -> str:
    return f"{member.method} seed {member.seed}"


def _tags(stage: Stage, method: str) -> dict[str, str]:
    return {"knife.method": method, "knife.fingerprint": stage.key, "knife.data": stage.data}
