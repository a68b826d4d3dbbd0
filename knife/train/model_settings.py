"""What must be known about a trained model besides its weights: how it reads and answers."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from knife.core.atomic import write_json
from knife.train.evaluate import Explains, GenerationSpec

MODEL_SETTINGS = "knife.json"


@dataclass(frozen=True)
class ModelSettings:
    """How a trained model reads and answers.

    Attributes:
        rationale: whether it reads `[I ; R]`, as a teacher does.
        bottleneck: whether its answer depends only on the hidden states of the task input.
        max_tokens: bound on task input and rationale together.
        method: how a student was trained; "teacher" for a teacher.
        open: whether it was trained to write open answers.
        answer_tokens: the most tokens that it writes.
        rationale_tokens: the most tokens of a rationale that it writes at test, after its answer or
            apart from it.
        preamble_tokens: the most tokens of a task input with few-shot demonstrations before it.
    """

    rationale: bool
    bottleneck: bool
    max_tokens: int
    method: str = "finetune"
    open: bool = False
    answer_tokens: int = 0
    preamble_tokens: int = 0
    rationale_tokens: int = 0

    def write(self, model: Path) -> None:
        """Write the settings beside the weights."""
        write_json(model / MODEL_SETTINGS, asdict(self))

    @staticmethod
    def read(model: Path) -> "ModelSettings":
        """Read what `write` wrote."""
        return ModelSettings(**json.loads((model / MODEL_SETTINGS).read_text()))

    def asking(self, tokenizer: Any, *, rationale: bool, test: bool = True) -> GenerationSpec:
        """Return how the model is queried, with or without rationales. But for a `test`, only what
        its answers depend on is written."""
        explains: Explains = "first" if self.method == "explain_then_answer" else "no"
        if test and self.rationale_tokens:
            explains = "apart" if self.method == "step_by_step" else "after"
        return GenerationSpec(
            rationale, explains, self.answer_tokens, self.rationale_tokens, tokenizer
        )
