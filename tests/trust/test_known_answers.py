"""If the best possible accuracy is known, every method's number is there.

A model that sees a test rationale, a test answer or its own training question again would be above
chance where nothing can be known; one whose labels, padding or scores are shifted would be below 1
where the question determines the answer.
"""

import math
from pathlib import Path
from typing import Any

import pytest
from known import ANSWER_IN_THE_RATIONALE, LEARNABLE, RANDOM, KnownWorld, write_world
from pair import made
from small_run import small_config

from knife.pipeline.run import conclude
from knife.stats.verdict import Verdict

# Methods for every backbone, and those that need a model that generates.
METHODS = ["finetune", "knife", "teacher_init", "rationale_input", "retrieve"]
WRITERS = ["explain_then_answer", "answer_then_explain", "step_by_step", "prompt"]
MODELS = {"tiny-t5": [*METHODS, *WRITERS], "tiny-bert": METHODS, "tiny-llama": METHODS}
TEST = 200
# Guessing exceeds this, 4.4 standard deviations, once in 90,000 trainings.
REACH = 4.4 * math.sqrt(0.25 / TEST)
CHANCE = pytest.approx(0.5, abs=REACH)


def verdict_of(world: KnownWorld, model: str, folder: Path) -> Verdict:
    source = write_world(world, folder / "data", train=160, dev=40, test=TEST)
    training: dict[str, Any] = {"epochs": 6, "batch_size": 20, "evaluate_epochs": 6}
    config = small_config(
        folder / "store",
        data={"source": str(source)},
        model={"teacher": model, "student": model},
        methods=MODELS[model],
        prompt={"shots": 2},
        # Both alignments, so that everything a teacher knows can reach the student.
        align={"output": {"weight": 1.0, "target": "choices"}},
        teacher=training | {"learning_rate": 2e-3},
        student=training | {"learning_rate": 3e-3},
    )
    found = made(config)
    return conclude(found.plan, found.store)


def accuracies(verdict: Verdict) -> dict[str, float]:
    return {method.method: method.accuracy for method in verdict.methods}


@pytest.mark.parametrize("model", MODELS)
def test_a_question_that_determines_its_answer_is_learned_by_every_method(
    model: str, tmp_path: Path
) -> None:
    verdict = verdict_of(LEARNABLE, model, tmp_path)
    found = accuracies(verdict)
    # It is not trained, and an untrained model may answer anything.
    found.pop("prompt", None)
    # It has never answered without a rationale, but gets none here.
    assert found.pop("rationale_input") > 0.5 + REACH
    assert min(found.values()) >= 0.95, found
    # An irrelevant rationale does no harm.
    assert verdict.ceiling
    assert verdict.ceiling.with_rationale == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != "tiny-bert")) for name in MODELS],
)
def test_answers_that_only_test_rationales_state_are_guessed(model: str, tmp_path: Path) -> None:
    verdict = verdict_of(ANSWER_IN_THE_RATIONALE, model, tmp_path)
    # The teacher reads the answer, so there is something to leak.
    assert verdict.ceiling
    assert verdict.ceiling.with_rationale == pytest.approx(1, abs=0.02)
    assert verdict.ceiling.without_rationale == CHANCE
    for method, accuracy in accuracies(verdict).items():
        assert accuracy == CHANCE, method


@pytest.mark.slow
def test_answers_that_nothing_determines_are_guessed_by_all(tmp_path: Path) -> None:
    verdict = verdict_of(RANDOM, "tiny-t5", tmp_path)
    assert verdict.ceiling
    assert verdict.ceiling.with_rationale == CHANCE
    for method, accuracy in accuracies(verdict).items():
        assert accuracy == CHANCE, method
    # No method is significantly above another.
    for found in verdict.methods:
        p = found.difference.p_corrected if found.difference else None
        assert p is None or p >= 0.01, found
