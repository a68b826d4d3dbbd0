"""Half-real worlds: real facts, which packages ship, asked about in questions from templates.

Each name of a world (a star, an airport, …) has one of a few values for each attribute. A question
asks whether two names share a value; its rationale states the two facts. Both have several
wordings. As in the embedded world, no question contains a fact.

The facts and wordings of each world are in `worlds/NAME.yaml`, with their source and licence.
"""

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

import yaml

from knife.config.facts import Facts
from knife.core.errors import UserError, raise_errors
from knife.data.example import Example, Splits

_FOLDER = Path(__file__).parent / "worlds"
HALF_REAL = tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


@dataclass(frozen=True)
class Attribute:
    """An attribute and its sentences: `{n}` is a name, `{v}` a value, `{x}` and `{y}` names."""

    name: str
    facts: list[str]
    same: list[str]
    values: dict[str, str]


# What a question asks about: an attribute and two names.
Topic = tuple[Attribute, str, str]


def world_text(source: str) -> str:
    """Return the file of a world's facts."""
    return (_FOLDER / f"{source}.yaml").read_text(encoding="utf-8")


def half_real(source: str, world: Facts) -> Splits:
    """Return the three splits of a world, the same for the same `source` and `world`.

    No pair of names, in either order, is asked about the same attribute twice in all splits. Half
    of the questions of each split about each attribute have the answer yes. Train and dev do not
    depend on `world.split`.

    Raises:
        UserError: the world has too few names, or pairs of names, for the sizes.
    """
    read = yaml.safe_load(world_text(source))
    attributes = [
        Attribute(
            **about, name=name, values={who: each[place] for who, each in read["names"].items()}
        )
        for place, (name, about) in enumerate(read["attributes"].items())
    ]
    rng = random.Random(f"{source} {world.seed}")
    names, others = _drawn(rng, attributes[0], source, world)
    asked: set[tuple[str, str, str]] = set()
    splits: dict[str, list[Example]] = {}
    errors = []
    for split, size in {"train": world.train, "dev": world.dev, "test": world.test}.items():
        pairs = list(itertools.combinations(others if split == "test" else names, 2))
        topics: list[Topic] = []
        for attribute, share in zip(attributes, _parts(size, len(attributes)), strict=True):
            free = [pair for pair in pairs if (attribute.name, *pair) not in asked]
            rng.shuffle(free)
            found = _topics(attribute, free, share)
            if len(found) < share:
                errors.append(
                    f"data.facts.{split}: {size} questions need {share} pairs of names for the "
                    f"attribute {attribute.name!r} of {source}, half of them alike, but "
                    f"its names give only {len(found)} more; ask fewer, or change data.facts.names"
                )
            topics += found
        asked |= {(attribute.name, x, y) for attribute, x, y in topics}
        rng.shuffle(topics)
        splits[split] = [_example(rng, topic) for topic in topics]
    raise_errors(errors)
    note = f"{source}: facts of {read['source']}"
    return Splits(splits["train"], splits["dev"], splits["test"], [note])


def _drawn(
    rng: random.Random, first: Attribute, source: str, world: Facts
) -> tuple[list[str], list[str]]:
    """Draw the names of train and dev, and those of test: the same, or as many others, or all."""
    known = len(first.values)
    if world.names > known:
        raise UserError(
            f"data.facts.names: {source} has {known} names, but got {world.names}; give fewer"
        )
    # Alternately one name of each value, so that train has about equally many of each.
    by_value: dict[str, list[str]] = {}
    for name, value in first.values.items():
        by_value.setdefault(value, []).append(name)
    for some in by_value.values():
        rng.shuffle(some)
    turns = itertools.zip_longest(*by_value.values())
    ordered = [name for turn in turns for name in turn if name is not None]
    names = sorted(ordered[: world.names])
    if world.split == "pairs":
        return names, names
    return names, sorted(ordered[world.names : 2 * world.names])


def _parts(size: int, parts: int) -> list[int]:
    """Split a size into nearly equal parts."""
    return [size * (part + 1) // parts - size * part // parts for part in range(parts)]


def _topics(attribute: Attribute, pairs: list[tuple[str, str]], size: int) -> list[Topic]:
    """Take pairs to ask about an attribute, half of them alike, as many as there are."""
    alike = [(x, y) for x, y in pairs if attribute.values[x] == attribute.values[y]]
    unlike = [(x, y) for x, y in pairs if attribute.values[x] != attribute.values[y]]
    taken = alike[: size // 2] + unlike[: size - size // 2]
    return [(attribute, x, y) for x, y in taken]


def _example(rng: random.Random, topic: Topic) -> Example:
    attribute, *pair = topic
    identity = f"{attribute.name}-{pair[0]}|{pair[1]}"
    rng.shuffle(pair)
    values = [attribute.values[name] for name in pair]
    rationale = " ".join(
        rng.choice(attribute.facts).format(n=name, v=value)
        for name, value in zip(pair, values, strict=True)
    )
    return Example(
        id=identity,
        question=rng.choice(attribute.same).format(x=pair[0], y=pair[1]),
        choices=("yes", "no"),
        answer=int(values[0] != values[1]),
        rationale=rationale,
    )
