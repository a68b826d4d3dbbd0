"""Few-shot demonstrations before a task input: the same few for all, or the most similar one."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from knife.core import strict_json
from knife.data.example import Example
from knife.data.jsonl import read_examples, write_examples
from knife.data.retrieve import Similar
from knife.data.subset import lot
from knife.data.tokens import Tokens, closes, openings, rationale_text, task_input_text

_SHOTS, _TRAINING = "shots.json", "retrieve.jsonl"


def solved_text(example: Example, *, rationale: bool) -> str:
    """Format an example with its answer as a demonstration."""
    parts = [task_input_text(example)[0]]
    if rationale and example.rationale:
        parts.append(rationale_text(example.rationale))
    return " ".join([*parts, f"answer: {example.choices[example.answer]}"])


def draw_shots(
    training: Sequence[Example], count: int, seed: int, *, rationales: bool
) -> list[str]:
    """Draw `count` training examples as demonstrations, by the seed; with `rationales`, only from
    those that have one."""
    pool = [example for example in training if example.rationale or not rationales]
    pool.sort(key=lambda example: lot(seed, "shots", example.id))
    return [solved_text(example, rationale=rationales) for example in pool[:count]]


class Demonstrations:
    """The demonstrations before each task input of a model, the farthest from it first."""

    def __init__(self, shots: Sequence[str], training: Sequence[Example] = ()) -> None:
        self.shots, self.training = list(shots), list(training)
        self._similar = Similar(training) if training else None

    def texts(self, examples: Sequence[Example]) -> list[list[str]]:
        """Return the demonstrations for each example, as texts."""
        if self._similar is None:
            return [self.shots for _ in examples]
        found = self._similar.of(examples)
        return [[solved_text(other, rationale=True)] if other else [] for other in found]

    def save(self, model: Path) -> None:
        """Write the demonstrations beside a model's weights."""
        (model / _SHOTS).write_text(strict_json.dumps(self.shots, ensure_ascii=False))
        if self.training:
            write_examples(model / _TRAINING, self.training)


def saved_demonstrations(model: Path) -> Demonstrations | None:
    """Read what `save` wrote beside a model's weights; None if it has no demonstrations."""
    if not (model / _SHOTS).is_file():
        return None
    training = model / _TRAINING
    shots = json.loads((model / _SHOTS).read_text())
    return Demonstrations(shots, read_examples(training) if training.is_file() else ())


def put_before(
    tokens: Sequence[Tokens], texts: Sequence[Sequence[str]], tokenizer: Any, most: int
) -> tuple[list[Tokens], int]:
    """Put demonstrations before task inputs, together at most `most` tokens; also return for how
    many task inputs some did not fit.

    Task inputs are never truncated: the farthest demonstrations are left out if they do not fit.
    Demonstrations are tokenised separately, so that the tokens of task inputs stay the same.
    """
    distinct = list(dict.fromkeys(text for pieces in texts for text in pieces))
    # Like a rationale, a demonstration ends with a newline if no special token closes texts.
    ended = closes(tokenizer)
    end = "" if ended else "\n"
    whole = [text + end for text in distinct]
    ids = dict(zip(distinct, tokenizer(whole)["input_ids"], strict=True)) if whole else {}
    opens = openings(tokenizer)
    placed, without_room = [], 0
    for example, pieces in zip(tokens, texts, strict=True):
        opening = int(bool(example.input_ids) and example.input_ids[0] in opens)
        before: list[int] = []
        for text in reversed(pieces):
            piece = ids[text][int(ids[text][0] in opens) :]
            if ended:
                piece = piece[:-1]
            if len(before) + len(piece) + len(example.input_ids) > most:
                without_room += 1
                break
            before = [*piece, *before]
        own = example.input_ids
        moved = [(start + len(before), end + len(before)) for start, end in example.choice_spans]
        input_ids = [*own[:opening], *before, *own[opening:]]
        content = [place + len(before) for place in example.content]
        words = example.words
        if words:
            words = [*words[:opening], *[(0, 0)] * len(before), *words[opening:]]
        placed.append(
            replace(example, input_ids=input_ids, choice_spans=moved, content=content, words=words)
        )
    return placed, without_room
