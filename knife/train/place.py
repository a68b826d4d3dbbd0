"""Where a stage is made, and what it reads there."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from knife.config import Scale
from knife.data.jsonl import read_examples
from knife.data.tokens import Tokens, tokenize
from knife.method.backbone import load_backbone, load_tokenizer
from knife.store import Store
from knife.train.context import Context
from knife.train.mirror import Mirror
from knife.train.stage import Stage

MODEL_SETTINGS = "knife.json"


@dataclass(frozen=True)
class Place:
    """What every stage needs to be made.

    Attributes:
        store: what it reads from.
        work: the folder that becomes its artifact.
        scale: how wide it works.
        context: this worker's place among the workers.
    """

    store: Store
    work: Path
    scale: Scale
    context: Context

    def split(self, stage: Stage, model: Path, name: str) -> "Split":
        """A split of the stage's data as tokens of a model's tokenizer."""
        path = self.store.path("data", stage.data) / f"{name}.jsonl"
        return tokenized(path, model, stage.max_tokens)

    def model(self, kind: str, key: str) -> Path:
        """Folder of a trained teacher's or student's model."""
        return self.store.path(kind, key) / "model"

    def mirror(self, stage: Stage) -> Mirror | None:
        """Keeps a training's checkpoints where the store is a bucket; all workers ask together."""
        if self.store.bucket is None:
            return None
        return Mirror(self.store, stage.kind, stage.key, self.context)


@dataclass(frozen=True)
class Split:
    """A tokenised split: tokens and ids by row, and the tokenizer's padding token."""

    tokens: list[Tokens]
    ids: list[str]
    pad_id: int


@lru_cache(maxsize=8)
def tokenized(path: Path, model: Path, max_tokens: int) -> Split:
    """The examples of a file as tokens of a model's tokenizer."""
    examples = read_examples(path)
    tokenizer = load_tokenizer(model, "model")
    tokens, _ = tokenize(examples, tokenizer, max_tokens)
    return Split(tokens, [e.id for e in examples], tokenizer.pad_token_id or 0)


def load_published(model: Path) -> Any:
    """The backbone of a trained teacher or student, with the bottleneck it was trained with."""
    settings = json.loads((model / MODEL_SETTINGS).read_text())
    return load_backbone(model, bottleneck=settings["bottleneck"])
