"""Synthetic trials of synthetic sweeps."""

import math
import random
from collections.abc import Mapping
from typing import Any

from knife.tune.search.settings import Sweep
from knife.tune.search.space import Space
from knife.tune.search.trials import State, TrialRow

BASE = {
    "data": {"source": "creatures"},
    "model": {"teacher": "tiny-t5", "student": "tiny-t5"},
    "methods": ["knife"],
}


def a_space(domains: Mapping[str, Any], **settings: Any) -> Space:
    """Return a space that is searched at random, or as the settings say."""
    values = {"name": "made-up", "base": "demo", "space": domains}
    if settings.get("search") != "grid":
        values["budget"] = {"trials": 16}
    return Space(Sweep.model_validate(values | settings), BASE)


def a_row(
    number: int, point: dict[str, Any], score: float | None = 0.5, state: State = "finished"
) -> TrialRow:
    """Return a trial of one seed."""
    return TrialRow(
        number=number,
        point=point,
        state=state,
        score=score,
        seconds=60.0 + number,
        by_epoch={} if score is None else {1: score / 2, 2: score},
        scores={0: score} if score is not None and state == "finished" else {},
        error="ValueError: no such thing\n  at line 3" if state == "failed" else None,
    )


ALIGNMENT = a_space(
    {
        "align.input.weight": {"loguniform": [1, 300]},
        "align.output.weight": {"uniform": [0, 1]},
        "align.input.layers": {"choice": ["last", "all", [[3, 3]]]},
        "student.learning_rate": {"loguniform": [1e-4, 1e-2]},
    },
    name="alignment",
)


def alignment_rows(count: int = 16) -> list[TrialRow]:
    """Return random trials, of which one failed, one was stopped and some were pruned."""
    draw = random.Random(0)
    rows = []
    for number, point in enumerate(ALIGNMENT.points()[:count], 1):
        rate, weight = point["student.learning_rate"], point["align.input.weight"]
        score = 0.75 - 0.12 * math.log10(rate / 2e-3) ** 2 - 0.04 * math.log10(weight / 30) ** 2
        score += draw.gauss(0, 0.01)
        state: State = {4: "failed", 9: "stopped"}.get(number, "finished")  # type: ignore[assignment]
        state = "pruned" if number in (6, 12) else state
        row = a_row(number, point, None if state == "failed" else score, state)
        rows.append(row)
    return rows


KNIFE = {"name": "knife-with-a-long-name", "method": "knife", "align": {"input": {"weight": 30}}}
LOW_RESOURCE = a_space(
    {
        "data.fraction": {"grid": [0.05, 0.1, 0.3, 1.0]},
        "methods": {"grid": ["finetune", KNIFE, "teacher_init"]},
    },
    name="low-resource",
    search="grid",
    seeds={"search": [0, 1, 2]},
    test=True,
)


def grid_rows(space: Space, seeds: int = 3, *, tests: bool = True) -> list[TrialRow]:
    """Return all points of a grid; later values of a key are better, and so is more data."""
    draw = random.Random(0)
    rows = []
    for number, point in enumerate(space.points(), 1):
        places = [space.sweep.space[key].values.index(value) for key, value in point.items()]
        mean = 0.5 + 0.05 * places[0] + 0.06 * sum(places[1:])
        scores = {seed: mean + draw.gauss(0, 0.012) for seed in range(seeds)}
        rows.append(
            TrialRow(
                number=number,
                point=point,
                state="finished",
                score=sum(scores.values()) / seeds,
                seconds=30.0 * number,
                scores=scores,
                tests={seed: score - 0.01 for seed, score in scores.items()} if tests else {},
            )
        )
    return rows
