"""Deterministic, nested, stratified subsets: 10 % is part of 30 %, in any order of the file."""

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from knife.core.errors import UserError
from knife.data.example import Example
from knife.data.examples import Examples, values_of
from knife.data.normal import question_key

Integers = np.ndarray[Any, Any]


def subset(examples: Sequence[Example], fraction: float, seed: int) -> Examples:
    """Return the first `fraction` of `examples` in stratified order; at least one.

    The order depends only on seed, ids and classes, so a smaller subset is the head of a larger
    one. With C classes, a class that is a share p of the whole deviates from its exact share of
    the subset by at most (1 - p)/2 + p (C - 1)/2 examples: less than 1 for up to three classes,
    and for any number of classes of equal size.

    Raises:
        UserError: a class would have no example left; the message has its name, and the smallest
            fraction that works.
    """
    table = Examples.of(examples)
    if not table:
        return table
    names, classes = _classes(table)
    order = _stratified(table, classes, seed, "subset")
    size = max(1, round(fraction * len(order)))
    found, first = np.unique(classes[order], return_index=True)
    missing = sorted((index, names[code]) for code, index in zip(found, first, strict=True))
    missing = [(index, name) for index, name in missing if index >= size]
    if missing:
        # Rounded up to four digits, so that the suggested fraction works.
        enough = math.ceil((missing[-1][0] + 1) / len(order) * 10_000) / 10_000
        raise UserError(
            f"data.fraction: {fraction:g} of {len(order)} examples leaves none with "
            f"{' and none with '.join(name for _, name in missing)}; the smallest fraction that "
            f"works is {enough:g}"
        )
    return table.take(order[:size])


def hold_out(examples: Sequence[Example], share: float, seed: int) -> tuple[Examples, Examples]:
    """Split `examples` into those kept and the stratified `share` that is held out.

    Examples with the same question and choices, or of one group, are in the same part, so that
    none is both trained and tested on. At least one is held out, and both parts keep the order of
    `examples`.

    Raises:
        UserError: all examples belong to one group.
    """
    table = Examples.of(examples)
    size = max(1, round(share * len(table)))
    order = _stratified(table, _classes(table)[1], seed, "hold out")
    groups: list[list[int]] = _kin(table.take(order))
    if len(groups) == 1:
        if table.column("group").null_count < len(table):
            raise UserError(
                f"data.columns.group: the {len(order):,} examples left are of one group, or have "
                "questions in common, so that none can be held out for dev or test; give another "
                "column, or these splits as files"
            )
        # All examples have the same question, which has to be in both parts.
        groups = [[place] for place in range(len(order))]
    held: list[int] = []
    for group in groups:
        if len(held) + len(group) <= size:
            held += group
    if not held:
        held = min(groups, key=len)
    mask = np.zeros(len(table), dtype=bool)
    mask[order[held]] = True
    return table.take(np.flatnonzero(~mask)), table.take(np.flatnonzero(mask))


def _kin(examples: Sequence[Example]) -> list[list[int]]:
    """Return the places of examples that belong together, by the first of each: those with the same
    question and choices, or of one group, and those that they share these with."""
    first: dict[bytes | str, int] = {}
    # The earlier example that each one belongs to; itself if there is none.
    parents: list[int] = []

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    for number, example in enumerate(examples):
        parents.append(number)
        marks: list[bytes | str] = [question_key(example)]
        marks += [] if example.group is None else [example.group]
        for mark in marks:
            one, other = sorted((root(first.setdefault(mark, number)), root(number)))
            parents[other] = one
    found: dict[int, list[int]] = {}
    for number in range(len(parents)):
        found.setdefault(root(number), []).append(number)
    return list(found.values())


def lot(seed: int, purpose: str, identity: str) -> str:
    """Draw a lot for an example: sorting by it is a shuffle independent of the file order."""
    return lot_bytes(seed, purpose, identity).hex()


def lot_bytes(seed: int, purpose: str, identity: str) -> bytes:
    """Return the 32 bytes of a lot."""
    return hashlib.sha256(f"{seed}:{purpose}:{identity}".encode()).digest()


def share_choices(examples: Sequence[Example]) -> bool:
    """Whether all examples have the same set of choices, such as yes and no."""
    first: frozenset[str] | None = None
    for choices in values_of(examples, "choices"):
        if first is None:
            first = frozenset(choices)
        elif first != frozenset(choices):
            return False
    return first is not None


def class_names(examples: Sequence[Example]) -> list[str]:
    """Return the class of each example: its answer's text if all share one set of choices, or
    else the index of its answer."""
    names, classes = _classes(examples)
    return [names[code] for code in classes]


def _classes(examples: Sequence[Example]) -> tuple[dict[int, str], Integers]:
    """Return the names of the classes by number, and the class of each example."""
    if not share_choices(examples):
        answers = np.fromiter(values_of(examples, "answer"), dtype=np.int64, count=len(examples))
        return {code: f"answer index {code}" for code in np.unique(answers).tolist()}, answers
    numbers: dict[str, int] = {}
    pairs = zip(values_of(examples, "choices"), values_of(examples, "answer"), strict=True)
    codes = [numbers.setdefault(choices[answer], len(numbers)) for choices, answer in pairs]
    return {n: f"answer {text!r}" for text, n in numbers.items()}, np.array(codes, dtype=np.int64)


def _stratified(examples: Examples, classes: Integers, seed: int, purpose: str) -> Integers:
    """Return the rows of examples in the order in which subsets take them: each class evenly."""
    lots = (lot_bytes(seed, purpose, identity) for identity in examples.values("id"))
    # Big-endian, so that numbers are in the order of the bytes; compared from the first on.
    drawn = np.frombuffer(b"".join(lots), dtype=">u8").reshape(-1, 4).astype(np.uint64)
    keys = tuple(drawn[:, column] for column in (3, 2, 1, 0))
    by_class = np.lexsort((*keys, classes))
    _, starts, inverse, counts = np.unique(
        classes[by_class], return_index=True, return_inverse=True, return_counts=True
    )
    places = np.empty(len(classes))
    ranks = np.arange(len(classes)) - starts[inverse]
    places[by_class] = (ranks + 0.5) / counts[inverse]
    order: Integers = np.lexsort((*keys, places))
    return order
