"""Where a stage runs, and what it reads there."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from knife.config.scale import Scale
from knife.data.demonstrations import Demonstrations, put_before
from knife.data.example import Example
from knife.data.examples import Examples, Ids
from knife.data.several import several_files
from knife.data.token_table import TokenTable, picked
from knife.data.tokens import Tokens
from knife.models.load import load_backbone
from knife.models.tokenizer import load_tokenizer
from knife.plan.stage import Stage
from knife.store.store import Store
from knife.train.context import Context
from knife.train.mirror import Mirror
from knife.train.model_settings import ModelSettings


@dataclass(frozen=True)
class StageContext:
    """What every stage needs to run.

    Attributes:
        store: the store it reads from.
        work: the folder that becomes its artifact.
        scale: the config's `scale`: workers, precision and the like.
        context: this worker's place among the workers.
    """

    store: Store
    work: Path
    scale: Scale
    context: Context

    def split(self, stage: Stage, model: Path, name: str, *, tokens: str | None = None) -> "Split":
        """Return a split of the stage's data, as the tokens of its own model or by another key."""
        examples = self.store.path("data", stage.data) / f"{name}.arrow"
        tokenizer = load_tokenizer(model, "model")
        return Split(
            Examples.open(examples),
            self.tokens(tokens or stage.tokens, name),
            tokenizer,
            tokenizer.pad_token_id or 0,
        )

    def tokens(self, key: str, name: str) -> TokenTable:
        """Return a split as tokens, by their key."""
        return TokenTable.open(self.store.path("tokens", key) / f"{name}.arrow")

    def several(self, stage: Stage) -> "tuple[list[TokenTable], np.ndarray[Any, Any]]":
        """Return the training examples as tokens with each of several rationales, the first ones
        included, and how many each example has."""
        folder = self.store.path("tokens", stage.tokens)
        tables = [self.tokens(stage.tokens, "train"), *map(TokenTable.open, several_files(folder))]
        examples = Examples.open(self.store.path("data", stage.data) / "train.arrow")
        return tables, examples.rationale_counts

    def model(self, kind: str, key: str) -> Path:
        """Return the folder of a trained teacher's or student's model."""
        return self.store.path(kind, key) / "model"

    def mirror(self, stage: Stage) -> Mirror | None:
        """Return a training's mirror if the store is a bucket; all workers must call it."""
        if self.store.shared:
            return None
        return Mirror(self.store, stage.kind, stage.key, self.context)


@dataclass(frozen=True)
class Split:
    """A tokenized split: examples and their tokens by row, the tokenizer, its padding token."""

    examples: Sequence[Example]
    tokens: Sequence[Tokens]
    tokenizer: Any
    pad_id: int

    @property
    def ids(self) -> Sequence[str]:
        """The examples' ids, by row."""
        return Ids(Examples.of(self.examples))

    def take(self, rows: Sequence[int]) -> "Split":
        """Return the split with some of its examples, by their rows."""
        examples = Examples.of(self.examples).take(rows)
        return replace(self, examples=examples, tokens=picked(self.tokens, rows))

    def behind(self, demonstrations: Demonstrations | None, most: int) -> "Split":
        """Return the split with few-shot demonstrations before each input, up to `most` tokens."""
        if demonstrations is None:
            return self
        texts = demonstrations.texts(self.examples)
        tokens, _ = put_before(self.tokens, texts, self.tokenizer, most)
        return replace(self, tokens=tokens)


def load_published(model: Path) -> Any:
    """Load the backbone of a trained teacher or student, with its bottleneck as in training."""
    return load_backbone(model, bottleneck=ModelSettings.read(model).bottleneck)
