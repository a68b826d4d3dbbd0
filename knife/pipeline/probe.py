"""Whether what a run's students write belongs to what they answer: nothing is trained for it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from knife.config.methods import EXPLAINS
from knife.config.run import RunConfig
from knife.core.atomic import write_json
from knife.core.errors import raise_errors
from knife.data.example import Example
from knife.data.subset import lot_bytes
from knife.plan.plan import Member, Plan, plan_run
from knife.stats.probe import NAME, Probe, agreement, levels
from knife.store.disk import disk_errors
from knife.store.store import Store
from knife.train.probe import Probed
from knife.train.results import read_predictions

# In units of the standard deviation of all embeddings.
NOISES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
DRAWS = 3
# So many test examples show a difference of ten points.
_MOST = 200

# Told before each part, with a method's name and what is looked at.
Told = Callable[[str], None]


def probe_run(config: RunConfig, told: Told) -> tuple[list[Probe], Path]:
    """Probe the students of a finished run that write rationales; returns what was found, and the
    run's folder, where it is kept.

    Raises:
        UserError: as `plan_run` does; the run has no such method, no `finetune` or no teacher,
            open answers, or students that the store lacks.
    """
    from knife.report.run_page import run_report, write_or_warn

    plan = plan_run(config)
    writers = {m.method: m for m in reversed(plan.members) if m.student.method in EXPLAINS}
    finetune = [member for member in plan.members if member.method == "finetune"]
    store = Store(config.store)
    raise_errors(_errors(plan, store, [*writers.values(), *finetune]))
    test = plan.data[finetune[0].evaluate.data].test
    examples = sorted(test, key=lambda example: lot_bytes(0, "probe", example.id))[:_MOST]
    tables = [
        {row["id"]: float(row["right"]) for row in read_predictions(store, m.evaluate.key)}
        for m in finetune
    ]
    without = {e.id: fmean(table[e.id] for table in tables) for e in examples}
    assert plan.teacher
    teacher = Probed(store.path("teacher", plan.teacher.key) / "model")
    found = []
    with disk_errors(store.root):
        for method in dict.fromkeys(m.method for m in plan.members if m.method in writers):
            told(method)
            found.append(_probe(writers[method], store, examples, teacher, without))
        plan.folder.mkdir(parents=True, exist_ok=True)
        write_json(plan.folder / NAME, [asdict(each) for each in found])
        if (plan.folder / "verdict.json").is_file():
            write_or_warn(plan.folder, store, lambda: run_report(plan.folder, store))
        store.keep(plan.folder)
    return found, plan.folder


def _errors(plan: Plan, store: Store, members: Sequence[Member]) -> Iterable[str]:
    if not any(member.student.method in EXPLAINS for member in members):
        yield (
            "methods: none of them writes rationales, so there is nothing to probe; add one of "
            f"{', '.join(sorted(EXPLAINS))}"
        )
    if plan.teacher is None or all(member.method != "finetune" for member in members):
        yield (
            "methods: rationales are judged by the run's teacher in comparison with finetune; add "
            "finetune and knife"
        )
    if any(splits.test[0].open for splits in plan.data.values()):
        yield "data.source: has open answers; only answers by choice can be probed"
    kinds = [("student", m.student.key, m.student.label) for m in members]
    kinds += [("evaluate", m.evaluate.key, m.evaluate.label) for m in members]
    kinds += [("teacher", plan.teacher.key, "teacher")] if plan.teacher else []
    lacking = [label for kind, key, label in kinds if not store.has(kind, key)]
    if lacking:
        yield f"the run is not finished: {', '.join(lacking)} missing; knife run makes them"


def _probe(
    member: Member,
    store: Store,
    examples: Sequence[Example],
    teacher: Probed,
    without: dict[str, float],
) -> Probe:
    student = Probed(store.path("student", member.student.key) / "model")
    right, quality = [], []
    clean: list[dict[str, Any]] = []
    for noise in NOISES:
        # Without noise, all draws are the same.
        draws = range(DRAWS if noise else 1)
        drawn = [student.answer(examples, level=noise, seed=draw) for draw in draws]
        clean = clean or drawn[0]
        right.append([[float(row["right"]) for row in rows] for rows in drawn])
        quality.append([_quality(teacher, examples, rows, without) for rows in drawn])
        if not noise:
            right[-1] *= DRAWS
            quality[-1] *= DRAWS
    chance = fmean(1 / len(example.choices) for example in examples)
    wrote = [row for row, each in enumerate(clean) if each["rationale"]]
    importances = student.importances([examples[r] for r in wrote], [clean[r] for r in wrote])
    return Probe(
        member.method,
        member.seed,
        len(examples),
        levels(NOISES, np.array(right), np.array(quality), chance),
        agreement([(one.numpy(), other.numpy()) for one, other in importances]),
    )


def _quality(
    teacher: Probed,
    examples: Sequence[Example],
    rows: Sequence[dict[str, Any]],
    without: dict[str, float],
) -> list[float]:
    """Return whether the teacher is right with what was written, minus finetune, by example."""
    pairs = zip(examples, rows, strict=True)
    read = [replace(example, rationale=row["rationale"] or None) for example, row in pairs]
    return [
        float(row["right"]) - without[row["id"]] for row in teacher.answer(read, rationale=True)
    ]
