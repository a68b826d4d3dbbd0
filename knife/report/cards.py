"""Model cards beside the students of a run: STORE/student/KEY/README.md.

A card is written after its student's evaluation, and so is not part of the student's checksums: it
is stored in the same folder and replaced as a whole, and the artifact is complete without it. A
student shared by several runs has the card of the last run that made anything.
"""

import json
from types import SimpleNamespace
from typing import Any

from knife.config.run import RunConfig
from knife.data.leaks import RationaleOnly, rationale_only
from knife.models.families import ONE_SEQUENCE, family
from knife.plan.plan import Member, Plan
from knife.report.card import Facts, card
from knife.stats.verdict import Verdict
from knife.store.store import Store
from knife.train.results import accuracy

NAME = "README.md"
# Fewer rationales say nothing about leakage; more add nothing new.
_FEWEST, _MOST = 200, 5000


def write_cards(plan: Plan, store: Store, verdict: Verdict, *, anew: bool) -> None:
    """Write the cards of all students of a run; without `anew`, only if any has none."""
    # A run may have students that could not be made.
    have = store.have(plan.stages)
    members = [each for each in plan.members if ("evaluate", each.evaluate.key) in have]
    if not anew and all(read_card(store, member.student.key) for member in members):
        return
    configs = {variant.name: plan.config.of(variant) for variant in plan.config.variants()}
    leaks = {key: _leaks(plan, key) for key in plan.data}
    for member in members:
        text = card(_facts(plan, store, verdict, member, configs[member.method], leaks))
        store.attach("student", member.student.key, NAME, text)


def read_card(store: Store, key: str) -> str | None:
    """Read the card of a student; None if it has none yet."""
    return store.attached("student", key, NAME)


def _leaks(plan: Plan, key: str) -> RationaleOnly | None:
    train = [example for example in plan.data[key].train if example.rationale]
    return rationale_only(train[:_MOST]) if len(train) >= _FEWEST else None


def _facts(
    plan: Plan,
    store: Store,
    verdict: Verdict,
    member: Member,
    config: RunConfig,
    leaks: dict[str, RationaleOnly | None],
) -> Facts:
    student = member.student
    teachers = {stage.key: stage for stage in plan.stages if stage.kind == "teacher"}
    teacher = getattr(teachers.get(student.teacher or ""), "model", None)
    model = _config(store, student.key)
    kind = family(model)
    assert kind
    return Facts(
        run=plan.config.name,
        run_key=plan.key,
        method=member.method,
        seed=member.seed,
        key=student.key,
        config=config,
        student=student.model,
        teacher=teacher,
        weights=plan.weights,
        family=kind,
        # Others begin or end the text of a choice in a way of their own.
        plain=model.model_type in ONE_SEQUENCE,
        data_key=student.data,
        splits=plan.data[student.data],
        written=plan.written.get(student.data),
        leaks=leaks[student.data],
        accuracy=accuracy(store, member.evaluate.key),
        verdict=verdict,
    )


def _config(store: Store, key: str) -> Any:
    values = json.loads(store.read("student", key, "model/config.json"))
    return SimpleNamespace(**{"is_encoder_decoder": False} | values)
