"""What a run needs, and the refusal of what does not fit."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from command_fixtures import Command
from small_run import small_config

from knife.config.run import RunConfig
from knife.config.scale import Scale
from knife.plan.memory import MemoryEstimate, least
from knife.plan.needs import (
    MemoryBudget,
    find_room,
    machine_memory,
    room_errors,
    room_notes,
    states_errors,
)
from knife.plan.plan import plan_run
from knife.plan.stage import StatesStage

SMALL = MemoryBudget(1_000_000, "a GPU of this machine (made up)")


def config(folder: Path, **scale: Any) -> RunConfig:
    return small_config(folder / "store", scale={"launcher": "process"} | scale)


def test_what_cannot_fit_is_refused_with_numbers_and_what_would_do(tmp_path: Path) -> None:
    plan = plan_run(config(tmp_path))
    student = next(s for s in plan.stages if s.kind == "student")
    need = plan.needs[student.key]
    assert isinstance(need, MemoryEstimate)
    # The tiny T5's 206,592 parameters: weights, gradients and two moments in fp32.
    assert need.least == 16 * 206_592
    errors = room_errors(plan.needs, plan.stages, plan.config.scale, SMALL)
    assert [error.partition(":")[0] for error in errors] == ["model.teacher", "model.student"]
    assert "206.6 k parameters take 3.3 MB" in errors[0]
    assert "a GPU of this machine (made up) has 1.0 MB" in errors[0]
    assert "scale.workers=4 scale.zero_stage=3 scale.precision=bf16 would be enough" in errors[0]
    advised = Scale(workers=4, zero_stage=3, precision="bf16")
    assert least(206_592, advised, 1) <= SMALL.memory
    assert least(206_592, advised.model_copy(update={"workers": 2}), 1) > SMALL.memory
    enough = MemoryBudget(need.least, "this")
    assert room_errors(plan.needs, plan.stages, plan.config.scale, enough) == []


def test_activations_are_worth_a_note_alone(tmp_path: Path) -> None:
    plan = plan_run(config(tmp_path))
    room = MemoryBudget(4_000_000, "this")
    assert room_errors(plan.needs, plan.stages, plan.config.scale, room) == []
    notes = room_notes(plan.needs, plan.stages, room)
    assert [note.partition(":")[0] for note in notes] == ["teacher", "student"]
    assert "student.accumulate" in notes[1]


def test_states_larger_than_the_disk_are_refused(tmp_path: Path) -> None:
    plan = plan_run(config(tmp_path))
    states = next(s for s in plan.stages if isinstance(s, StatesStage))
    size = plan.needs[states.key]
    assert isinstance(size, int)
    store = tmp_path / "store"
    assert states_errors(plan.needs, plan.stages, store, size) == []
    (error,) = states_errors(plan.needs, plan.stages, store, size - 1)
    assert error.startswith("align.states: the teacher's states take ")
    assert "align.states=online" in error
    # What an interrupted try has written need not be written again.
    begun = store / "work" / f"states-{states.key}"
    begun.mkdir(parents=True)
    (begun / "shard-00000.safetensors").write_bytes(b"x")
    assert states_errors(plan.needs, plan.stages, store, size - 1) == []


def test_an_online_teacher_is_counted_and_stores_no_states(tmp_path: Path) -> None:
    align = {"states": "online"}
    plan = plan_run(small_config(tmp_path, align=align))
    (student,) = (s for s in plan.stages if s.kind == "student")
    need = plan.needs[student.key]
    assert isinstance(need, MemoryEstimate)
    assert need.teacher > 4 * 206_592
    assert not any(isinstance(need, int) for need in plan.needs.values())


def test_workers_share_the_memory_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert 10**8 < machine_memory() < 10**14
    room = find_room(Scale(workers=2))
    assert room
    assert room.memory == machine_memory() // 2
    # The hosts of a cluster are unknown.
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert find_room(Scale(workers=2)) is None


def test_the_memory_of_a_gpu_is_asked_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    room = find_room(Scale(gpus_per_worker=1))
    assert (room is not None) == torch.cuda.is_available()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry-run"])
def test_a_model_too_large_for_the_memory_is_refused_and_nothing_is_written(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: list[str]
) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("100000")
    monkeypatch.setattr("knife.plan.needs._LIMITS", [limit])
    store = tmp_path / "store"
    ended = command("run", "demo", "methods=[finetune]", f"store={store}", *dry)
    (error,) = ended.errors
    assert re.match(r"model.student: \d+\.\d k parameters take \d\.\d MB", error)
    assert "scale.workers=1 scale.zero_stage=0 scale.precision=fp32" in error
    assert not (store / "runs").exists()
