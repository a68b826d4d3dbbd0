"""Deterministic, nested, stratified subsets: 10 % is part of 30 %, in any order of the file."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from operator import itemgetter

from knife.core.errors import UserError
from knife.data.example import Example
from knife.data.normal import task_input_words


def subset(examples: Sequence[Example], fraction: float, seed: int) -> list[Example]:
    """Return the first `fraction` of `examples` in stratified order; at least one.

    The order depends only on seed, ids and classes, so a smaller subset is the head of a larger
    one. With C classes, a class that is a share p of the whole deviates from its exact share of
    the subset by at most (1 - p)/2 + p (C - 1)/2 examples: less than 1 for up to three classes,
    and for any number of classes of equal size.

    Raises:
        UserError: a class would have no example left; the message has its name, and the smallest
            fraction that works.
    """
    if not examples:
        return []
    order = _stratified(examples, seed, "subset")
    size = max(1, round(fraction * len(order)))
    first: dict[str, int] = {}
    for index, (name, _) in enumerate(order, start=1):
        first.setdefault(name, index)
    missing = [name for name, index in first.items() if index > size]
    if missing:
        # Rounded up to four digits, so that the suggested fraction works.
        enough = math.ceil(max(first.values()) / len(order) * 10_000) / 10_000
        raise UserError(
            f"data.fraction: {fraction:g} of {len(order)} examples leaves none with "
            f"{' and none with '.join(missing)}; the smallest fraction that works is {enough:g}"
        )
    return [example for _, example in order[:size]]


def hold_out(
    examples: Sequence[Example], share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Split `examples` into those kept and the stratified `share` that is held out.

    Examples with the same question and choices, or of one group, are in the same part, so that
    none is both trained and tested on. At least one is held out, and both parts keep the order of
    `examples`.

    Raises:
        UserError: all examples belong to one group.
    """
    size = max(1, round(share * len(examples)))
    order = [example for _, example in _stratified(examples, seed, "hold out")]
    groups = _kin(order)
    if len(groups) == 1:
        if any(example.group is not None for example in order):
            raise UserError(
                f"data.columns.group: the {len(order):,} examples left are of one group, or have "
                "questions in common, so that none can be held out for dev or test; give another "
                "column, or these splits as files"
            )
        # All examples have the same question, which has to be in both parts.
        groups = [[one.id] for one in order]
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


def _kin(examples: Sequence[Example]) -> list[list[str]]:
    """Return the ids of examples that belong together, by the first of each: those with the same
    question and choices, or of one group, and those that they share these with."""
    first: dict[object, int] = {}
    # The earlier example that each one belongs to; itself if there is none.
    parents: list[int] = []

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    for number, example in enumerate(examples):
        parents.append(number)
        marks: list[object] = [task_input_words(example)]
        marks += [] if example.group is None else [example.group]
        for mark in marks:
            one, other = sorted((root(first.setdefault(mark, number)), root(number)))
            parents[other] = one
    found: dict[int, list[str]] = {}
    for number, example in enumerate(examples):
        found.setdefault(root(number), []).append(example.id)
    return list(found.values())


def lot(seed: int, purpose: str, identity: str) -> str:
    """Draw a lot for an example: sorting by it is a shuffle independent of the file order."""
    return hashlib.sha256(f"{seed}:{purpose}:{identity}".encode()).hexdigest()


def share_choices(examples: Iterable[Example]) -> bool:
    """Whether all examples have the same set of choices, such as yes and no."""
    return len({frozenset(example.choices) for example in examples}) == 1


def class_names(examples: Sequence[Example]) -> list[str]:
    """Return the class of each example: its answer's text if all share one set of choices, or
    else the index of its answer."""
    if share_choices(examples):
        return [f"answer {example.choices[example.answer]!r}" for example in examples]
    return [f"answer index {example.answer}" for example in examples]


def _stratified(examples: Sequence[Example], seed: int, purpose: str) -> list[tuple[str, Example]]:
    """Return pairs of class and example, in the order in which subsets take them."""
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
