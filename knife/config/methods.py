"""The methods by which students are trained, and the settings that only one of them has."""

from typing import Literal

from pydantic import Field

from knife.config.section import ConfigSection

Method = Literal[
    "finetune",
    "knife",
    "teacher_init",
    "explain_then_answer",
    "answer_then_explain",
    "rationale_input",
    "step_by_step",
    "internalize",
    "prompt",
    "retrieve",
]
# Methods whose students themselves are trained on rationales.
READS_RATIONALES = {
    "explain_then_answer",
    "answer_then_explain",
    "rationale_input",
    "step_by_step",
    "internalize",
    "retrieve",
}
# Methods whose student must generate text: a rationale, or an answer from a prompt alone.
WRITES = {"explain_then_answer", "answer_then_explain", "step_by_step", "internalize", "prompt"}
# Methods whose students write a rationale when they are tested, though no answer depends on it.
EXPLAINS_AT_TEST = {"answer_then_explain", "step_by_step"}
# Methods whose students write a rationale at test, before, after or apart from their answer.
EXPLAINS = EXPLAINS_AT_TEST | {"explain_then_answer"}
# Methods whose students learn from a teacher.
TEACHES = {"knife", "teacher_init"}


# Methods with a section of their own beside that of the student.
OWN_SECTION = {"step_by_step", "internalize"}


class Prompt(ConfigSection):
    """The few-shot demonstrations of `prompt`: training examples drawn by the seed, with or
    without their rationales."""

    shots: int = Field(4, ge=1)
    rationales: bool = False


class StepByStep(ConfigSection):
    """The weight of the second task of `step_by_step`, to generate the rationale; the first one,
    to answer, has the rest of 1."""

    weight: float = Field(0.5, gt=0, lt=1)


class Internalize(ConfigSection):
    """How many tokens `internalize` removes from the front of rationales after each epoch; null
    removes the longest one within the first half of the epochs."""

    tokens_each_epoch: int | None = Field(None, ge=1)
