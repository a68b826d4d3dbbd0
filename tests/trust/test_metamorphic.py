"""Changes of the input whose effect on a run's numbers is known exactly."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from known import CHOICES, LEARNABLE, write_world
from pair import Made, made
from small import batch_of
from small_run import small_config

from knife.config.run import parse
from knife.config.scale import Scale
from knife.data.example import Example
from knife.data.jsonl import read_examples, write_examples
from knife.method.objective import Objective
from knife.train.context import PlainContext
from knife.train.evaluate import answer_split, measures
from knife.train.model_settings import ModelSettings
from knife.train.stage_context import StageContext, load_published

Change = Callable[[list[Example]], list[Example]]


def flipped(examples: list[Example]) -> list[Example]:
    return [replace(example, answer=1 - example.answer) for example in examples]


def lying(examples: list[Example]) -> list[Example]:
    """Return examples whose rationales state the wrong answer."""
    return [replace(e, rationale=f"{CHOICES[1 - e.answer]} .") for e in examples]


def result_of(
    folder: Path, model: str = "tiny-t5", change: dict[str, Change] | None = None
) -> Made:
    """Make a run in a separate store, so that nothing is reused; `change` is by split."""
    source = write_world(LEARNABLE, folder / "data", train=60, dev=40, test=60)
    for split, changed in (change or {}).items():
        path = source / f"{split}.jsonl"
        write_examples(path, changed(read_examples(path)))
    config = small_config(
        folder / "store",
        data={"source": str(source)},
        model={"teacher": model, "student": model},
        methods=["finetune", "knife"],
        # Stopped early, so that answers are neither all right nor all equal.
        student={"epochs": 2, "learning_rate": 3e-4},
        teacher={"epochs": 1},
    )
    return made(config)


def weights(result: Made, method: str) -> bytes:
    (member,) = [m for m in result.plan.members if m.method == method]
    folder = result.store.path("student", member.student.key) / "model"
    return (folder / "model.safetensors").read_bytes()


def rows(result: Made, method: str) -> dict[str, dict[str, Any]]:
    (member,) = [m for m in result.plan.members if m.method == method]
    text = result.store.read("evaluate", member.evaluate.key, "predictions.jsonl")
    return {row["id"]: row for row in map(json.loads, text.splitlines())}


def losses(result: Made, method: str) -> list[float]:
    (member,) = [m for m in result.plan.members if m.method == method]
    text = result.store.read("student", member.student.key, "journal.jsonl")
    metrics = [json.loads(line)["metrics"] for line in text.splitlines()]
    return [own["loss"] for own in metrics if "loss" in own]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return result_of(tmp_path_factory.mktemp("plain"))


def test_nothing_of_the_test_split_but_its_questions_reaches_a_student(
    plain: Made, tmp_path: Path
) -> None:
    """With other answers, rationales and order in the test split, trainings and predictions are the
    same, and what was right is wrong."""
    changed: dict[str, Change] = {"test": lambda part: flipped(lying(part))[::-1]}
    other = result_of(tmp_path, change=changed)
    for method in ("finetune", "knife"):
        assert weights(other, method) == weights(plain, method)
        before, after = rows(plain, method), rows(other, method)
        assert before.keys() == after.keys()
        assert 0 < sum(row["right"] for row in before.values()) < len(before)
        for name, row in after.items():
            assert row["choice"] == before[name]["choice"]
            assert row["probabilities"] == pytest.approx(before[name]["probabilities"], abs=2e-6)
            assert row["answer"] == 1 - before[name]["answer"]
            assert row["right"] != before[name]["right"]


def test_dev_answers_choose_an_epoch_and_train_nothing(plain: Made, tmp_path: Path) -> None:
    other = result_of(tmp_path, change={"dev": flipped})
    for method in ("finetune", "knife"):
        assert losses(other, method) == losses(plain, method)


def test_training_rationales_reach_only_what_reads_them(plain: Made, tmp_path: Path) -> None:
    other = result_of(tmp_path, change={"train": lying})
    assert weights(other, "finetune") == weights(plain, "finetune")
    assert weights(other, "knife") != weights(plain, "knife")


def test_seeds_draw_trainings_of_their_own(plain: Made, tmp_path: Path) -> None:
    values = plain.plan.config.model_dump() | {"seeds": [0, 1], "store": str(tmp_path)}
    both = made(parse(values | {"methods": ["finetune"]}))
    first, second = [m for m in both.plan.members if m.method == "finetune"]
    files = [
        both.store.path("student", m.student.key) / "model/model.safetensors"
        for m in (first, second)
    ]
    # A second seed does not change the first one.
    assert files[0].read_bytes() == weights(plain, "finetune")
    assert files[1].read_bytes() != files[0].read_bytes()


def test_the_published_student_is_the_best_epoch_without_dropout(
    tmp_path: Path, tiny_bert: Path
) -> None:
    """Its accuracy and loss on dev, recomputed from its files, are those it was chosen by."""
    result = result_of(tmp_path, str(tiny_bert))
    for member in result.plan.members:
        folder = result.store.path("student", member.student.key)
        recorded = json.loads((folder / "trained.json").read_text())
        place = StageContext(result.store, tmp_path, Scale(), PlainContext())
        split = place.split(member.student, folder / "model", "dev")
        model = load_published(folder / "model").eval()
        asking = ModelSettings.read(folder / "model").asking(split.tokenizer, rationale=False)
        answers = answer_split(
            Objective(model), split.tokens, split.ids, split.pad_id, PlainContext(), asking
        )
        found = measures(answers, split.tokens)
        assert found["accuracy"] == recorded["dev_accuracy"]
        assert found["loss"] == pytest.approx(recorded["dev_loss"], abs=1e-6)
        text = (folder / "journal.jsonl").read_text()
        every = [json.loads(line)["metrics"] for line in text.splitlines()]
        evaluated = [m for m in every if "dev_accuracy" in m]
        assert len(evaluated) == 2
        best = max(evaluated, key=lambda m: (m["dev_accuracy"], -m["dev_loss"]))
        assert recorded["dev_loss"] == best["dev_loss"]
        # The model has dropout, which would show.
        batch = batch_of(split.tokens, split.pad_id, rationale=False)
        with torch.no_grad():
            calm, lively = model(batch).scores_BC, model.train()(batch).scores_BC
        assert (calm - lively).abs().max() > 1e-3
