"""What a stage is: its key, what its result depends on, and what is needed to make it."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from knife.config.run import Align, Method, Prompt, Training
from knife.models.source import ModelSource


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One resumable step.

    Attributes:
        key: fingerprint of `depends`.
        depends: all that the result hangs on, JSON-ready.
        label: words for a progress display.
        data: key of the data that it reads.
        max_tokens: bound on task input and rationale together.
    """

    kind: ClassVar[str]
    key: str
    depends: dict[str, Any]
    label: str
    data: str
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
    """Compute the frozen teacher's states of every training example, or their variance alone."""

    kind: ClassVar[str] = "states"
    teacher: str
    layers: tuple[int, ...]
    outputs: bool
    precision: Literal["fp32", "bf16"]
    stored: bool


@dataclass(frozen=True, kw_only=True)
class StudentStage(Stage):
    """Train a student by one method and seed; `prompt` trains nothing.

    Attributes:
        teacher: key of the teacher, for `teacher_init` and `knife`.
        states: key of the teacher states, for `knife`, with settings and layer map.
        prompt: which solved examples the student of `prompt` gets.
        preamble_tokens: bound on a task input with solved examples before it.
    """

    kind: ClassVar[str] = "student"
    method: Method
    model: ModelSource
    training: Training
    seed: int
    teacher: str | None = None
    states: str | None = None
    align: Align | None = None
    layers: tuple[tuple[int, int], ...] = ()
    prompt: Prompt | None = None
    preamble_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class EvaluateStage(Stage):
    """Predictions of a teacher or a student on the test split."""

    kind: ClassVar[str] = "evaluate"
    model_kind: str
    model_key: str
    rationale: bool


def inputs(stage: Stage) -> list[tuple[str, str]]:
    """Kind and key of the artifacts that a stage reads, data aside."""
    match stage:
        case StatesStage():
            return [("teacher", stage.teacher)]
        case StudentStage():
            teacher = [("teacher", stage.teacher)] if stage.teacher else []
            return teacher + ([("states", stage.states)] if stage.states else [])
        case EvaluateStage():
            return [(stage.model_kind, stage.model_key)]
    return []
