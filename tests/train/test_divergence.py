"""Trainings with non-finite numbers all fail, wherever the first such number appears."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pair import Pair, in_pair
from student import TRAINING, Student, rows

from knife.config.run import Align, InputAlignment, Training
from knife.core.errors import TrainingDivergedError
from knife.models.source import EMBEDDED
from knife.train.context import Context, PlainContext
from knife.train.divergence import own_part

TINY = EMBEDDED["tiny-t5"]
# One step: the loss before it is finite, and only the evaluation on dev sees the new weights.
BLOWN_UP = Training(epochs=1, learning_rate=1e12, batch_size=26, warmup=0)
# Each step multiplies the weights by about -99.
DECAY = Training(epochs=40, learning_rate=1e-1, batch_size=26, warmup=1, weight_decay=4e4)
SCALES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "bf16-1": {"precision": "bf16", "zero_stage": 1},
    "zero-1": {"zero_stage": 1},
    "zero-2": {"zero_stage": 2},
    "zero-3": {"zero_stage": 3},
}


IN_PAIR = ("fp32", "bf16", "zero-3")
KINDS = {
    "outputs": "after step 1, on dev, the outputs are not finite for 12 of 12 examples: ",
    "gradient": "the gradient is not finite at step 1; ",
    "loss of one worker": "the loss (input_alignment) is not finite at step 3; ",
}


@pytest.fixture
def context() -> Iterator[PlainContext]:
    with PlainContext() as context:
        yield context


def fails(student: Student, work: Path, context: Context) -> str:
    """Train, and return why it fails; there must be no result."""
    with pytest.raises(TrainingDivergedError) as error:
        student.train(work, context)
    assert not (work / "trained.json").exists()
    assert not (work / "model").exists()
    return str(error.value)


@pytest.mark.parametrize("name", SCALES)
def test_weights_that_the_last_update_blows_up(
    context: PlainContext, tmp_path: Path, name: str
) -> None:
    student = Student(TINY, BLOWN_UP, **SCALES[name])
    words = fails(student, tmp_path, context)
    ids = ", ".join(student.job.dev_ids[:10])
    assert words == (
        "after step 1, on dev, the outputs are not finite for 12 of 12 examples: "
        f"{ids} and 2 more; last good checkpoint: none yet. Lower the learning rate, or look at "
        "these examples"
    )
    (row,) = rows(tmp_path)
    assert row["metrics"]["loss"] < 10


@pytest.mark.parametrize("rate", [1e20, 1e30])
def test_weights_whose_squares_overflow(context: PlainContext, tmp_path: Path, rate: float) -> None:
    """Normalization turns the states into zeros, so the outputs are all equal."""
    training = BLOWN_UP.model_copy(update={"learning_rate": rate})
    words = fails(Student(TINY, training), tmp_path, context)
    assert words.startswith("the weights are not finite, or beyond 1e+18, after step 1; examples")


def test_an_earlier_epoch_that_was_finite_is_no_result(
    context: PlainContext, tmp_path: Path
) -> None:
    student = Student(TINY, DECAY, checkpoint_steps=1)
    words = fails(student, tmp_path, context)
    found = [row for row in rows(tmp_path) if "dev_loss" in row["metrics"]]
    assert len(found) > 1
    assert list(tmp_path.glob("best-*/*.safetensors"))
    # The checkpoint it would resume from is finite, and the message names it.
    newest = max((tmp_path / "checkpoints").iterdir())
    assert f"last good checkpoint: the one of step {int(newest.name[-8:])}. " in words
    place = json.loads((newest / "place.json").read_text(), parse_constant=pytest.fail)
    assert place["place"]["step"] == int(newest.name[-8:])
    for path in newest.glob("*_model_states.pt"):
        for weight in torch.load(path, weights_only=False)["module"].values():
            assert weight.isfinite().all()
    # Trying again fails in the same way.
    assert fails(student, tmp_path, context) == words


# ZeRO 3 sums squares in double precision, in which this gradient's norm is finite.
@pytest.mark.parametrize("name", [name for name in SCALES if name != "zero-3"])
def test_a_gradient_that_overflows_is_no_step_left_out(
    context: PlainContext, tmp_path: Path, name: str
) -> None:
    """The loss is finite. DeepSpeed skips such a step, or takes it with a gradient of 0."""
    student = Student(TINY, TRAINING, **SCALES[name])
    student.align = Align(input=InputAlignment(weight=3e38))
    words = fails(student, tmp_path, context)
    assert words.startswith("the gradient is not finite at step 1; examples of that batch: ")
    assert "last good checkpoint: none yet" in words


def test_the_part_of_the_loss_is_named(context: PlainContext, tmp_path: Path) -> None:
    student = Student(TINY)
    student.nan_at = 2
    words = fails(student, tmp_path, context)
    assert words.startswith("the loss (input_alignment) is not finite at step 2; ")


def both_fail(context: Pair, folder: Path) -> None:
    """Check that two workers fail with the same message, without waiting for each other."""
    for name in IN_PAIR:
        for kind in KINDS:
            if (name, kind) == ("zero-3", "gradient"):
                continue
            work = folder / f"{name}-{kind}"
            training = BLOWN_UP if kind == "outputs" else TRAINING
            student = Student(TINY, training, checkpoint_steps=2, **SCALES[name])
            if kind == "gradient":
                student.align = Align(input=InputAlignment(weight=3e38))
            elif kind == "loss of one worker" and context.rank:
                student.nan_at = 3
            with pytest.raises(TrainingDivergedError) as error:
                student.train(work, context)
            (folder / f"{name}-{kind}-{context.rank}").write_text(str(error.value))
            assert not (work / "trained.json").exists()


def test_two_workers_fail_together(tmp_path: Path) -> None:
    in_pair(both_fail, tmp_path)()
    said = {path.name: path.read_text() for path in tmp_path.glob("*-[01]")}
    assert len(said) == 2 * (len(IN_PAIR) * len(KINDS) - 1)
    for name, words in said.items():
        assert words == said[f"{name[:-1]}1"]
        assert words.startswith(KINDS[name.rsplit("-", 2)[1]]), name


def test_the_padding_of_a_sharded_weight_is_none_of_it() -> None:
    """DeepSpeed leaves padding uninitialized: here it is NaN."""
    weight: Any = torch.nn.Parameter(torch.empty(0))
    weight.ds_numel = 3
    for rank, values in enumerate(([1.0, 2.0], [3.0, torch.nan])):
        weight.ds_tensor = torch.tensor(values)
        assert own_part(weight, rank).tolist() == [1.0, 2.0, 3.0][2 * rank : 2 * rank + 2]
    weight.ds_numel, weight.ds_tensor = 1, torch.tensor([torch.nan])
    assert own_part(weight, 1).numel() == 0
    whole = torch.nn.Parameter(torch.ones(2))
    assert own_part(whole, 1) is whole
