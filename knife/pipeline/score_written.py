"""Scores of what a run's students wrote: those that the store has, none is trained for it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from knife.data.example import Example
from knife.data.subset import share_choices
from knife.plan.scores import ScorePlan
from knife.stats.rationale_scores import Scored
from knife.stats.written_scores import Reply, WrittenScores, written_scores
from knife.store.store import Store
from knife.train.results import read_predictions


def with_written(wanted: ScorePlan, store: Store) -> ScorePlan:
    """Return the plan with the stages that score what the store's students wrote."""
    have = store.have(stage for each in wanted.written for stage in each.stages)
    done = [
        each
        for each in wanted.written
        if all((s.kind, s.key) in have for s in (each.member.student, each.member.evaluate))
    ]
    stages = [*wanted.plan.stages, *(stage for each in done for stage in each.stages)]
    return replace(wanted, plan=replace(wanted.plan, stages=stages), written=done)


def score_written(
    wanted: ScorePlan, store: Store, rows: Sequence[Scored]
) -> tuple[list[WrittenScores], list[str]]:
    """Return the scores of each method whose students wrote, and what a reader should know."""
    test = wanted.plan.data[wanted.finetune[0].evaluate.data].test
    without = {row.id: row.without for row in rows}
    examples = [example for example in test if example.id in without]
    shared = share_choices(examples)
    by_method: dict[str, list[list[Reply]]] = {}
    empty: Counter[str] = Counter()
    for each in wanted.written:
        said, explained, alone = (
            {row["id"]: row for row in read_predictions(store, stage.key)}
            for stage in (each.member.evaluate, each.explained, each.alone)
        )
        replies = [
            Reply(
                without=without[e.id],
                explained=float(explained[e.id]["right"]),
                answer=_answer(e, said[e.id]),
                follows=_answer(e, alone[e.id]),
                choices=0 if shared or e.open else len(e.choices),
            )
            for e in examples
        ]
        method = each.member.method
        by_method.setdefault(method, []).append(replies)
        empty[method] += sum(not said[e.id]["rationale"] for e in examples)
    notes = [
        f"{method} wrote nothing in {number} of {len(by_method[method]) * len(examples)} answers"
        for method, number in empty.items()
        if number
    ]
    return [written_scores(method, each) for method, each in by_method.items()], notes


def _answer(example: Example, row: dict[str, Any]) -> str:
    return str(row["text"]) if example.open else example.choices[row["choice"]]
