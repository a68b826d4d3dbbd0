"""Frozen, nested, stratified subsets: 10 % is a part of 30 %, whatever the order of the file."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from operator import itemgetter

from knife.core.errors import UserError
from knife.data.example import Example
from knife.data.normal import task_input_words


def subset(examples: Sequence[Example], fraction: float, seed: int) -> list[Example]:
    """The first `fraction` of `examples` in their stratified order; at least one.

    The order depends on seed, ids and classes alone, so a smaller subset is the head of a larger
    one. With C classes, a class that is a share p of the whole is off its exact share of the
    subset by at most (1 - p)/2 + p (C - 1)/2 examples: less than 1 for up to three classes, and
    for any number of classes of like size.

    Raises:
        UserError: where a class would be left without an example; names it, and the smallest
            fraction that works.
    """
    if not examples:
        return []
    order = _stratified(examples, seed, "subset")
    size = max(1, round(fraction * len(order)))
    first: dict[str, int] = {}
    for place, (name, _) in enumerate(order, start=1):
        first.setdefault(name, place)
    missing = [name for name, place in first.items() if place > size]
    if missing:
        # Rounded up to four digits, so that what is said does work.
        enough = math.ceil(max(first.values()) / len(order) * 10_000) / 10_000
        raise UserError(
            f"data.fraction: {fraction:g} of {len(order)} examples leaves none with "
            f"{' and none with '.join(missing)}; the smallest fraction that works is {enough:g}"
        )
    return [example for _, example in order[:size]]


def hold_out(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Part `examples` in two: what is kept, and the stratified `share` that is held out.

    Examples of one question with the same choices are all in one part, so that none is trained on
    and tested. At least one is held out, and both parts keep the order of `examples`.
    """
    size = max(1, round(share * len(examples)))
    order = [example for _, example in _stratified(examples, seed, "hold out")]
    same: dict[tuple[str, ...], list[str]] = {}
    for example in order:
        same.setdefault(task_input_words(example), []).append(example.id)
    # One question alone cannot be parted, and then its examples are.
    groups = list(same.values()) if len(same) > 1 else [[one.id] for one in order]
    held: set[str] = set()
    for group in groups:
        if len(held) + len(group) <= size:
            held.update(group)
    if not held:
        held.update(sorted(groups, key=len)[0])
    return (
        [example for example in examples if example.id not in held],
        [example for example in examples if example.id in held],
    )


def lot(seed: int, purpose: str, identity: str) -> str:
    """A lot drawn for an example: to sort by it is a shuffle that knows no file order."""
    return hashlib.sha256(f"{seed}:{purpose}:{identity}".encode()).hexdigest()


def share_choices(examples: Iterable[Example]) -> bool:
    """Whether all examples have one set of choices, such as yes and no."""
    return len({frozenset(example.choices) for example in examples}) == 1


def class_names(examples: Sequence[Example]) -> list[str]:
    """The class of each example: its answer's text where all share one set of choices, or else
    the place of its answer among the choices."""
    if share_choices(examples):
        return [f"answer {example.choices[example.answer]!r}" for example in examples]
    return [f"answer index {example.answer}" for example in examples]


def _stratified(examples: Sequence[Example], seed: int, purpose: str) -> list[tuple[str, Example]]:
    """Class and example, in the order in which subsets take them."""
    classes: dict[str, list[tuple[str, Example]]] = {}
    for name, example in zip(class_names(examples), examples, strict=True):
        classes.setdefault(name, []).append((lot(seed, purpose, example.id), example))
    placed = []
    for name, members in classes.items():
        members.sort(key=itemgetter(0))
        for rank, (drawn, example) in enumerate(members):
            placed.append(((rank + 0.5) / len(members), drawn, name, example))
    placed.sort(key=itemgetter(0, 1))
    return [(name, example) for _, _, name, example in placed]
