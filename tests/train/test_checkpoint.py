"""What a training resumes from: damaged checkpoints, other numbers of workers, SIGTERM."""

import json
import os
import pickle
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from attack import Attack
from pair import in_pair
from safetensors.torch import load_file
from student import TRAINING, KilledError, Student, rows, same_weights

from knife.config.lora import Lora
from knife.core.errors import TrainingDivergedError
from knife.core.exits import Terminated, exits
from knife.models.source import EMBEDDED
from knife.train.context import Context, PlainContext
from knife.train.conversion import CheckpointLayout, convert

TINY = EMBEDDED["tiny-t5"]
SHAPES: dict[str, dict[str, Any]] = {
    "zero-0": {"zero_stage": 0},
    "zero-1": {"zero_stage": 1},
    "zero-2": {"zero_stage": 2},
    "zero-3": {"zero_stage": 3},
    "bf16-0": {"zero_stage": 0, "precision": "bf16"},
    "bf16-1": {"zero_stage": 1, "precision": "bf16"},
    "bf16-3": {"zero_stage": 3, "precision": "bf16"},
    "lora": {"zero_stage": 2},
}
SEVEN = TRAINING.model_copy(update={"batch_size": 7})
ADAPTED = TRAINING.model_copy(update={"lora": Lora(rank=4)})


def of(name: str) -> Student:
    """Return the student of a name in SHAPES."""
    training = ADAPTED if name == "lora" else TRAINING
    return Student(TINY, training, checkpoint_steps=3, **SHAPES[name])


@pytest.fixture
def context() -> Iterator[PlainContext]:
    with PlainContext() as context:
        yield context


def notes(work: Path) -> list[str]:
    lines = map(json.loads, (work / "journal.jsonl").read_text().splitlines())
    return [line["note"] for line in lines if "note" in line]


def measured(work: Path) -> list[dict[str, Any]]:
    return [row for row in rows(work) if "note" not in row]


@pytest.mark.parametrize("file", ["*_model_states.pt", "place.json", "best"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    context: PlainContext, tmp_path: Path, file: str
) -> None:
    student = Student(TINY, checkpoint_steps=3)
    whole = student.train(tmp_path / "whole", context)
    work = tmp_path / "cut"
    with pytest.raises(KilledError):
        student.train(work, context, fail_at=11)
    newest = work / "checkpoints" / "step-00000009"
    if file == "best":
        # From the epoch that ended at step 8; the checkpoint of step 6 does not need it.
        (found,) = (work / "best-00000008").glob("*.safetensors")
    else:
        (found,) = newest.glob(file)
    damaged = bytearray(found.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    found.write_bytes(damaged if file != "place.json" else damaged[:40])
    student.train(work, context)
    assert student.steps == 12 - 6
    assert measured(work) == whole
    assert same_weights(work, tmp_path / "whole")
    (note,) = notes(work)
    name = found.relative_to(work) if file == "best" else found.name
    assert note.startswith("checkpoint step-00000009 is damaged (")
    assert str(name) in note


def test_with_every_checkpoint_damaged_a_training_begins_again(
    context: PlainContext, tmp_path: Path
) -> None:
    student = Student(TINY, checkpoint_steps=3)
    whole = student.train(tmp_path / "whole", context)
    work = tmp_path / "cut"
    with pytest.raises(KilledError):
        student.train(work, context, fail_at=8)
    for path in work.glob("checkpoints/*/place.json"):
        path.write_text("{}")
    student.train(work, context)
    assert student.steps == 12
    assert measured(work) == whole
    assert notes(work)[-1] == "no usable checkpoint is left: the training starts from the beginning"


def cut_off(context: Context, folder: Path) -> None:
    """Train in every layout until a kill in step 7 of 12, as one of two workers."""
    for name in SHAPES:
        student = of(name)
        with pytest.raises(KilledError):
            student.train(folder / "two-then-one" / name, context, fail_at=7)


def go_on(context: Context, folder: Path) -> None:
    """Resume trainings that one process began, and run complete ones for comparison."""
    for name in SHAPES:
        student = of(name)
        student.train(folder / "two" / name, context)
        student.train(folder / "one-then-two" / name, context)
    Student(TINY, SEVEN).train(folder / "two" / "seven", context)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make trainings that change from one to two workers, the reverse, and complete ones."""
    folder = tmp_path_factory.mktemp("converted")
    for name in ("one", "two", "one-then-two", "two-then-one"):
        (folder / name).mkdir()
    with PlainContext() as context:
        for name in SHAPES:
            student = of(name)
            student.train(folder / "one" / name, context)
            with pytest.raises(KilledError):
                student.train(folder / "one-then-two" / name, context, fail_at=7)
    in_pair(cut_off, folder)()
    (folder / "rendezvous").unlink()
    in_pair(go_on, folder)()
    with PlainContext() as context:
        for name in SHAPES:
            of(name).train(folder / "two-then-one" / name, context)
        Student(TINY, SEVEN).train(folder / "one" / "seven", context)
    return folder


@pytest.mark.faults
@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("way", ["one-then-two", "two-then-one"])
def test_a_training_goes_on_with_another_number_of_workers(
    converted: Path, way: str, name: str
) -> None:
    """Its losses, weights and choices are those of an uninterrupted training.

    In bf16 different numbers of workers have different losses: compare with the initial number.
    """
    work, whole = converted / way / name, converted / way.split("-")[0] / name
    found, expected = measured(work), measured(whole)
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    tolerance = 2e-2 if "bf16" in name else 1e-4
    for row, other in zip(found, expected, strict=True):
        assert row["metrics"] == pytest.approx(other["metrics"], rel=tolerance, abs=tolerance)
    for tensor, other in zip(*(load(folder) for folder in (work, whole)), strict=True):
        # Two units of bf16's precision, and one or two updates of small weights.
        rtol, atol = (2**-6, 1e-2) if "bf16" in name else (0, 1e-4)
        torch.testing.assert_close(tensor, other, rtol=rtol, atol=atol)
    workers = {"one-then-two": ("1 worker", "2 workers"), "two-then-one": ("2 workers", "1 worker")}
    if SHAPES[name]["zero_stage"] == 0:
        assert notes(work) == []
    else:
        (note,) = notes(work)
        written, shape = (f"{words}, {shape_words(name)}" for words in workers[way])
        assert note == f"checkpoint step-00000006 of {written} was converted for {shape}"
    assert not (work / "converted").exists()


def shape_words(name: str) -> str:
    scale = SHAPES[name]
    return f"ZeRO {scale['zero_stage']}, {scale.get('precision', 'fp32')}"


def load(work: Path) -> list[torch.Tensor]:
    state = load_file(work / "model" / "model.safetensors")
    return [state[name] for name in sorted(state)]


@pytest.mark.faults
def test_parts_of_unlike_size_make_the_whole_batch(converted: Path) -> None:
    """Batches of 7 are split over two workers."""
    two, one = measured(converted / "two" / "seven"), measured(converted / "one" / "seven")
    for row, other in zip(two, one, strict=True):
        assert row["metrics"] == pytest.approx(other["metrics"], rel=1e-4, abs=1e-4)


@pytest.mark.faults
def test_a_checkpoint_of_another_zero_stage_serves_where_it_can_be_converted(
    context: PlainContext, tmp_path: Path
) -> None:
    begun = Student(TINY, checkpoint_steps=3, zero_stage=1)
    whole = begun.train(tmp_path / "whole", context)
    for stage, steps in ((2, 6), (0, 12)):
        work = tmp_path / str(stage)
        with pytest.raises(KilledError):
            begun.train(work, context, fail_at=8)
        student = Student(TINY, checkpoint_steps=3, zero_stage=stage)
        student.train(work, context)
        assert student.steps == steps
        for row, other in zip(measured(work), whole, strict=True):
            assert row["metrics"] == pytest.approx(other["metrics"], rel=1e-4, abs=1e-4)


def test_conversion_reads_weights_and_runs_no_code(context: PlainContext, tmp_path: Path) -> None:
    student, work = Student(TINY, checkpoint_steps=3, zero_stage=1), tmp_path / "work"
    with pytest.raises(KilledError):
        student.train(work, context, fail_at=5)
    folder = work / "checkpoints" / "step-00000003"
    (file,) = folder.glob("*optim_states.pt")
    mark = tmp_path / "mark"
    torch.save(torch.load(file, weights_only=False) | {"more": Attack(mark)}, file)
    one, two = CheckpointLayout(1, 1, "fp32"), CheckpointLayout(2, 1, "fp32")
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        convert(folder, tmp_path / "converted" / "x", one, two)
    assert not mark.exists()


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_leaves_a_checkpoint_of_the_very_step(
    context: PlainContext, tmp_path: Path
) -> None:
    student = Student(TINY, checkpoint_steps=100)
    whole = student.train(tmp_path / "whole", context)
    work = tmp_path / "cut"
    student.at_step[6] = sigterm
    with pytest.raises(SystemExit) as ended, exits():
        student.train(work, context)
    assert ended.value.code == 143
    student.at_step.clear()
    student.train(work, context)
    assert student.steps == 12 - 6
    # The checkpoint adds a line; the losses of all others are unchanged.
    evaluations = [row for row in whole if "dev_loss" in row["metrics"]]
    assert [row for row in rows(work) if "dev_loss" in row["metrics"]] == evaluations
    assert same_weights(work, tmp_path / "whole")


def told_alone(context: Context, folder: Path) -> None:
    """Only rank 1 receives SIGTERM."""
    student = Student(TINY, checkpoint_steps=100)
    if context.rank:
        student.at_step[6] = sigterm
    with pytest.raises(Terminated), exits_by_exception():
        student.train(folder / "work", context)


@contextmanager
def exits_by_exception() -> Iterator[None]:
    def end(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.faults
def test_one_of_two_workers_told_to_end_stops_both_at_one_step(tmp_path: Path) -> None:
    in_pair(told_alone, tmp_path)()
    (place,) = (tmp_path / "work").glob("checkpoints/*/place.json")
    # One step later, when both know of it.
    assert json.loads(place.read_text())["place"]["step"] == 7


def test_a_loss_that_is_no_number_names_step_examples_and_checkpoint(
    context: PlainContext, tmp_path: Path
) -> None:
    student = Student(TINY, checkpoint_steps=3)
    student.nan_at = 9
    seen: dict[int, list[int]] = {}
    for step in range(1, 13):
        student.at_step[step] = lambda: seen.update({student.steps: student.last_rows})
    with pytest.raises(TrainingDivergedError) as error:
        student.train(tmp_path, context)
    words = str(error.value)
    assert "at step 9; " in words
    assert "last good checkpoint: the one of step 6" in words
    named = words.split("examples of that batch: ")[1].split("; ")[0].split(", ")
    assert named == list(dict.fromkeys(student.job.ids[row] for row in seen[9]))
    assert len(named) == 8
