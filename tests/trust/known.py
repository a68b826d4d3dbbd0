"""Worlds whose best possible accuracy is known, which a run's numbers must match."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from knife.data.creatures import WORLD_NAMES
from knife.data.example import Example
from knife.data.jsonl import write_examples

COLOURS = ("red", "blue", "green", "white")
HOMES = ("forest", "desert", "swamp", "mountain")
CHOICES = ("yes", "no")
# Each split has different creatures: no question is in two of them.
NAMES = {split: WORLD_NAMES[own::3] for own, split in enumerate(("train", "dev", "test"))}


@dataclass(frozen=True)
class KnownWorld:
    """Yes/no questions about one creature and a colour; both answers are equally frequent.

    Attributes:
        learnable: whether the colour determines the answer; otherwise nothing in the question does.
        rationale: the rationale of a creature's name and the answer's index.
    """

    learnable: bool
    rationale: Callable[[random.Random, str, int], str]


def _states_the_answer(_rng: random.Random, _name: str, answer: int) -> str:
    return f"{CHOICES[answer]} ."


def _irrelevant(rng: random.Random, name: str, _answer: int) -> str:
    return f"the home of a {name} is the {rng.choice(HOMES)} ."


LEARNABLE = KnownWorld(learnable=True, rationale=_irrelevant)
ANSWER_IN_THE_RATIONALE = KnownWorld(learnable=False, rationale=_states_the_answer)
RANDOM = KnownWorld(learnable=False, rationale=_irrelevant)


def write_world(world: KnownWorld, folder: Path, **sizes: int) -> Path:
    """Write splits of the given sizes into a new folder."""
    folder.mkdir()
    for split, count in sizes.items():
        write_examples(folder / f"{split}.jsonl", _examples(world, split, count))
    return folder


def _examples(world: KnownWorld, split: str, count: int) -> list[Example]:
    rng = random.Random(f"known {split}")
    examples = []
    for number in range(count):
        name, colour = rng.choice(NAMES[split]), COLOURS[number % 4]
        answer = (number % 4 if world.learnable else number // 4) % 2
        question = f"is a {colour} {name} the same ?"
        rationale = world.rationale(rng, name, answer)
        examples.append(Example(f"{split}-{number}", question, CHOICES, answer, rationale))
    rng.shuffle(examples)
    return examples
