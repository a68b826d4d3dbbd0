"""Trained models give the expected scores to rationales that were made to be good or useless."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from small_run import silent, small_config

from knife.config.run import World
from knife.data.creatures import creatures
from knife.data.evidence import vacuous
from knife.data.example import Example
from knife.data.jsonl import write_examples
from knife.data.treatment import corrupt
from knife.pipeline.score import score
from knife.stats.rationale_scores import RationaleScores

Say = Callable[[Sequence[Example]], Sequence[Example]]


def scores_of(say: Say, folder: Path) -> RationaleScores:
    """Return scores over questions whose answers only a rationale reveals."""
    world = creatures(World(creatures=64, train=200, dev=40, test=60, cue=0))
    for name in ("train", "dev", "test"):
        write_examples(folder / f"{name}.jsonl", say(getattr(world, name)))
    config = small_config(
        folder / "store",
        data={"source": str(folder), "world": {}},
        methods=["finetune", "knife"],
        teacher={"epochs": 6, "learning_rate": 2e-3},
        student={"epochs": 2},
    )
    return score(config, silent).scores


@pytest.mark.slow
def test_rationales_that_state_the_answer(tmp_path: Path) -> None:
    found = scores_of(
        lambda part: [replace(e, rationale=f"the answer is {e.choices[e.answer]} .") for e in part],
        tmp_path,
    )
    assert found.rationale_only == 1
    assert found.explained == 1
    assert found.rq == 1 - found.without
    assert found.las is None
    # An even chance becomes certainty.
    assert found.information >= math.log(2) - 0.02


@pytest.mark.slow
def test_vacuous_rationales_have_no_rev(tmp_path: Path) -> None:
    found = scores_of(lambda part: [replace(e, rationale=vacuous(e)) for e in part], tmp_path)
    assert found.rev == pytest.approx(0, abs=0.02)


@pytest.mark.slow
def test_rationales_of_other_examples_are_worth_nothing(tmp_path: Path) -> None:
    found = scores_of(lambda part: corrupt(part, "shuffled", 0), tmp_path)
    # Three standard errors of the difference of two guessers on 60 examples: 0.27.
    assert abs(found.rq) <= 0.27
    assert found.information <= 0.1
    assert abs(found.rationale_only - 0.5) <= 0.2
