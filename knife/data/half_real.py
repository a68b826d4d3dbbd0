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
from knife.core.errors import UserError
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


def half_real(source: str, world: Facts) -> Splits:
    """Return the three splits of a world, the same for the same `source` and `world`.

    No pair of names, in either order, is asked about the same attribute twice in all splits. Half
    of the questions of each split about each attribute have the answer yes.

    Raises:
        UserError: the world has too few names, or pairs of names, for the sizes.
    """
    rng = random.Random(f"{source} {world.seed}")
    read = yaml.safe_load((_FOLDER / f"{source}.yaml").read_text(encoding="utf-8"))
    attributes = [
        Attribute(
            **about, name=name, values={who: each[place] for who, each in read["names"].items()}
        )
        for place, (name, about) in enumerate(read["attributes"].items())
    ]
    names = _drawn(rng, attributes[0], source, world)
    pairs: dict[str, list[tuple[str, str]]] = {
        split: list(itertools.combinations(some, 2)) for split, some in names.items()
    }
    splits: dict[str, list[Example]] = {}
    errors = []
    asked: set[tuple[str, str, str]] = set()
    for split, size in {"test": world.test, "dev": world.dev, "train": world.train}.items():
        topics: list[Topic] = []
        for attribute, share in zip(attributes, _parts(size, len(attributes)), strict=True):
            free = [pair for pair in pairs[split] if (attribute.name, *pair) not in asked]
            rng.shuffle(free)
            found = _topics(attribute, free, share)
            if len(found) < share:
                errors.append(
                    f"data.facts.{split}: {size} questions need {share} pairs of names for the "
                    f"attribute {attribute.name!r} of {source}, half of them alike, but "
                    f"{len(names[split])} names give only {len(found)} more; ask fewer, or raise "
                    "data.facts.names"
                )
            topics += found
        asked |= {(attribute.name, x, y) for attribute, x, y in topics}
        rng.shuffle(topics)
        splits[split] = [_example(rng, topic) for topic in topics]
    if errors:
        raise UserError(*errors)
    note = f"{source}: facts of {read['source']}"
    return Splits(splits["train"], splits["dev"], splits["test"], [note])


def _drawn(rng: random.Random, first: Attribute, source: str, world: Facts) -> dict[str, list[str]]:
    """Draw the names of each split: the same for all, or with `split: names` others for each."""
    parts = {"train": world.names}
    if world.split == "names":
        parts |= {"dev": (world.names + 1) // 2, "test": world.names}
    need, known = sum(parts.values()), len(first.values)
    if need > known:
        most = known if world.split == "pairs" else int(known / 2.5)
        raise UserError(
            f"data.facts.names: {world.names} names with data.facts.split={world.split} take "
            f"{need} of {source}, which has {known}; give at most {most}"
        )
    # Alternately one name of each value, so that all splits have about equally many of each.
    by_value: dict[str, list[str]] = {}
    for name, value in first.values.items():
        by_value.setdefault(value, []).append(name)
    for some in by_value.values():
        rng.shuffle(some)
    turns = itertools.zip_longest(*by_value.values())
    ordered = iter([name for turn in turns for name in turn if name is not None][:need])
    drawn = {split: list(itertools.islice(ordered, count)) for split, count in parts.items()}
    return {split: sorted(drawn.get(split, drawn["train"])) for split in ("train", "dev", "test")}


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
