"""Stages: the key of each, what its result depends on, and what is needed to make it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from knife.config.methods import Internalize, Method, Prompt
from knife.config.run import Align, Training
from knife.method.states_parts import StatesPart
from knife.models.source import ModelSource


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One resumable step.

    Attributes:
        key: fingerprint of `depends`.
        depends: everything that the result depends on, as values for JSON.
        label: text for a progress display.
        data: key of the data that it reads.
        tokens: key of that data as tokens of its model.
        max_tokens: limit on task input and rationale together.
    """

    kind: ClassVar[str]
    key: str
    depends: dict[str, Any]
    label: str
    data: str
    tokens: str
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class TeacherStage(Stage):
    """Finetune the teacher on task input and rationale."""

    kind: ClassVar[str] = "teacher"
    model: ModelSource
    training: Training
    bottleneck: bool
    seed: int


@dataclass(frozen=True, kw_only=True)
class StatesStage(Stage):
    """Compute one part of the frozen teacher's states for all training examples.

    Attributes:
        teacher: key of the teacher.
        part: which part.
        precision: number format of the stored states.
        stored: whether the states are stored, or only their variance.
    """

    kind: ClassVar[str] = "states"
    teacher: str
    part: StatesPart
    precision: Literal["fp32", "bf16"]
    stored: bool


@dataclass(frozen=True, kw_only=True)
class StudentStage(Stage):
    """Train a student with one method and seed; `prompt` trains nothing.

    Attributes:
        teacher: key of the teacher, for `teacher_init` and `knife`.
        states: keys of the teacher states that it reads, by part, for `knife`.
        align, layers: settings and layer map, for `knife`; no layers without input alignment.
        prompt: the demonstrations that the student of `prompt` gets.
        internalize: settings, for `internalize`.
        rationale_weight: weight of the second task of `step_by_step`.
        demonstration_tokens: limit on demonstrations and task input together.
        teacher_tokens: key of the data as tokens of the teacher.
    """

    kind: ClassVar[str] = "student"
    method: Method
    model: ModelSource
    training: Training
    seed: int
    teacher: str | None = None
    states: dict[StatesPart, str] = field(default_factory=dict)
    align: Align | None = None
    layers: tuple[tuple[int, int], ...] = ()
    prompt: Prompt | None = None
    internalize: Internalize | None = None
    rationale_weight: float = 0.5
    demonstration_tokens: int = 0
    teacher_tokens: str = ""


@dataclass(frozen=True, kw_only=True)
class EvaluateStage(Stage):
    """Predict the test split with a teacher or a student.

    Attributes:
        asked: what the examples of that split are: those of `dev` for a forecast.
        written: key of the evaluation of a student whose own rationales are read in place of the
            given ones, or nothing.
    """

    kind: ClassVar[str] = "evaluate"
    model_kind: str
    model_key: str
    rationale: bool
    asked: Literal["dev", "test"] = "test"
    written: str = ""


def inputs(stage: Stage) -> list[tuple[str, str]]:
    """Return kind and key of the artifacts that a stage reads, apart from data."""
    match stage:
        case StatesStage():
            return [("teacher", stage.teacher)]
        case StudentStage():
            teacher = [("teacher", stage.teacher)] if stage.teacher else []
            return teacher + [("states", key) for key in stage.states.values()]
        case EvaluateStage():
            written = [("evaluate", stage.written)] if stage.written else []
            return [(stage.model_kind, stage.model_key), *written]
    return []


def data_inputs(stage: Stage) -> list[tuple[str, str]]:
    """Return kind and key of the data that a stage reads, and of its tokens."""
    found = [("data", stage.data), ("tokens", stage.tokens)]
    if isinstance(stage, StudentStage) and stage.teacher_tokens:
        found.append(("tokens", stage.teacher_tokens))
    return found


def together(stages: Iterable[Stage]) -> list[list[Stage]]:
    """Group stages that are made at once: the states of one teacher, in one pass over the data.

    Every other stage is a group of its own. Groups are in the order of their first stages.
    """
    groups: dict[tuple[str, ...], list[Stage]] = {}
    for stage in stages:
        key = (stage.teacher, stage.data) if isinstance(stage, StatesStage) else (stage.key,)
        groups.setdefault((stage.kind, *key), []).append(stage)
    return list(groups.values())
