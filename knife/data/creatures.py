"""The embedded world: questions about invented creatures whose facts are only in the rationales.

Each creature has a home, a diet and a colour, each with one of four values. A question asks
whether two creatures share an attribute (or which of the two has a value); its rationale states
the two facts. The questions contain no facts, so a student can answer unseen questions only by
remembering what the rationales of other questions stated.

A name is two syllables, two tokens of the tiny T5. Its pretraining covers every syllable, but none
of the combinations in `WORLD_NAMES`. The first syllable alone identifies a creature. The tiny T5
answers "same" questions correctly when given the facts; it has not learned "which one" questions
(about half right), so these are for other models.
"""

import itertools
import random
from dataclasses import dataclass

from knife.config.run import World
from knife.core.errors import UserError
from knife.data.example import Example, Splits

# fmt: off
ONSETS = [
    "br", "dr", "fl", "gl", "gr", "kl", "kr", "pl",
    "pr", "sk", "sl", "sn", "sp", "st", "tr", "zw",
]
SECOND_SYLLABLES = [
    "map", "bik", "dun", "fol", "gam", "hep", "jin", "kor",
    "lub", "mez", "nop", "pif", "rud", "sog", "tav", "wex",
]
# fmt: on
FIRST_SYLLABLES = [onset + vowel for onset in ONSETS for vowel in "aeio"]
WORLD_NAMES = [
    first + SECOND_SYLLABLES[index * 5 % len(SECOND_SYLLABLES)]
    for index, first in enumerate(FIRST_SYLLABLES)
]


@dataclass(frozen=True)
class Attribute:
    """An attribute and its sentences: `{n}` is a name, `{v}` a value, `{x}` and `{y}` creatures."""

    name: str
    values: tuple[str, str, str, str]
    facts: tuple[str, str, str]
    same: str
    which: str
    cue: str


ATTRIBUTES = (
    Attribute(
        name="home",
        values=("forest", "desert", "swamp", "mountain"),
        facts=(
            "a {n} lives in the {v} .",
            "the home of a {n} is the {v} .",
            "you find a {n} in the {v} .",
        ),
        same="do {x} and {y} live in the same place ?",
        which="which one lives in the {v} , {x} or {y} ?",
        cue="a {v} {n}",
    ),
    Attribute(
        name="diet",
        values=("fish", "grass", "fruit", "honey"),
        facts=("a {n} eats {v} .", "the food of a {n} is {v} .", "a {n} feeds on {v} ."),
        same="do {x} and {y} eat the same food ?",
        which="which one eats {v} , {x} or {y} ?",
        cue="a {v} eating {n}",
    ),
    Attribute(
        name="colour",
        values=("red", "blue", "green", "white"),
        facts=("a {n} is {v} .", "the colour of a {n} is {v} .", "a {n} has {v} fur ."),
        same="do {x} and {y} have the same colour ?",
        which="which one is {v} , {x} or {y} ?",
        cue="a {v} {n}",
    ),
)

# The attribute and the two creatures that a question asks about.
Topic = tuple[Attribute, str, str]
# Attribute name -> creature -> value.
Facts = dict[str, dict[str, str]]


def creatures(world: World) -> Splits:
    """Return the three splits of the world, the same for the same `world`.

    In every split, half of the yes/no questions have the answer yes. Across all splits, no pair of
    creatures, in either order, is asked about the same attribute twice. In "which one" questions
    the position of the answer is balanced as well.

    Raises:
        UserError: the world has too few pairs of creatures for the sizes.
    """
    rng = random.Random(f"creatures {world.seed}")
    names, facts = _drawn(rng, world)
    alike: list[Topic] = []
    unlike: list[Topic] = []
    for attribute in ATTRIBUTES:
        for x, y in itertools.combinations(names, 2):
            of = facts[attribute.name]
            (alike if of[x] == of[y] else unlike).append((attribute, x, y))
    rng.shuffle(alike)
    rng.shuffle(unlike)

    sizes = {"train": world.train, "dev": world.dev, "test": world.test}
    counts = {split: _counts(size, world) for split, size in sizes.items()}
    _refuse_too_large(world, list(counts.values()), len(alike), len(unlike))
    splits: dict[str, list[Example]] = {}
    for split, (yes, no, which) in counts.items():
        examples = [
            _example(rng, kind, alike.pop() if kind == "yes" else unlike.pop(), facts, index, cued)
            for kind, count in (("yes", yes), ("no", no), ("which", which))
            for index, cued in enumerate(_cued(rng, count, world.cue))
        ]
        rng.shuffle(examples)
        splits[split] = examples
    return Splits(train=splits["train"], dev=splits["dev"], test=splits["test"])


def facts_of(world: World) -> Facts:
    """Return all facts of a world, which depend on its seed and number of creatures alone."""
    return _drawn(random.Random(f"creatures {world.seed}"), world)[1]


def _drawn(rng: random.Random, world: World) -> tuple[list[str], Facts]:
    """Draw the names and the facts of a world."""
    names = rng.sample(WORLD_NAMES, world.creatures)
    facts: Facts = {}
    for attribute in ATTRIBUTES:
        rng.shuffle(names)
        facts[attribute.name] = dict(zip(names, itertools.cycle(attribute.values)))
    return names, facts


def _counts(size: int, world: World) -> tuple[int, int, int]:
    """Return how many questions of a split are answered yes, are answered no, or ask which one."""
    which = round(world.which * size)
    yes = (size - which) // 2
    return yes, size - which - yes, which


def _refuse_too_large(
    world: World, counts: list[tuple[int, int, int]], alike: int, unlike: int
) -> None:
    """Raise `UserError` if too few pairs share an attribute, or too few differ in one."""
    yes = sum(count[0] for count in counts)
    other = sum(count[1] + count[2] for count in counts)
    if yes <= alike and other <= unlike:
        return
    by_alike = 2 * alike / (1 - world.which) if world.which < 1 else 2 * unlike
    most = int(min(by_alike, 2 * unlike / (1 + world.which)))
    raise UserError(
        f"data.world.train + data.world.dev + data.world.test: {yes + other} questions need {yes} "
        f"pairs of creatures that share an attribute and {other} that do not, but "
        f"data.world.creatures={world.creatures} gives only {alike} and {unlike}: ask at most "
        f"{most} questions in all, or raise data.world.creatures (up to 64)"
    )


def _cued(rng: random.Random, count: int, share: float) -> list[bool]:
    """Draw which of `count` questions state the facts themselves: `share` of them, rounded."""
    cued = [index < round(share * count) for index in range(count)]
    rng.shuffle(cued)
    return cued


def _example(
    rng: random.Random, kind: str, topic: Topic, facts: Facts, index: int, cued: bool
) -> Example:
    attribute, x, y = topic
    pair = [x, y]
    rng.shuffle(pair)
    values = [facts[attribute.name][name] for name in pair]
    said = [
        (attribute.cue if cued else "a {n}").format(n=name, v=value)
        for name, value in zip(pair, values, strict=True)
    ]
    if kind == "which":
        # The right one is alternately first and second.
        choices, answer = (pair[0], pair[1]), index % 2
        question = attribute.which.format(v=values[answer], x=said[0], y=said[1])
    else:
        choices, answer = ("yes", "no"), int(kind == "no")
        question = attribute.same.format(x=said[0], y=said[1])
    rationale = " ".join(
        rng.choice(attribute.facts).format(n=name, v=value)
        for name, value in zip(pair, values, strict=True)
    )
    return Example(
        id="-".join([attribute.name, *sorted(pair)]),
        question=question,
        choices=choices,
        answer=answer,
        rationale=rationale,
    )
