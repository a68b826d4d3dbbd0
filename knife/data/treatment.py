"""Treatments of rationales: changes made to them before any training (`data.rationale`)."""

import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace

from knife.config.run import Data
from knife.data.example import Example, Splits
from knife.data.examples import Examples
from knife.data.subset import lot, subset
from knife.data.suspicious import repeated_rationales, same_words
from knife.data.unleaked import mask, unleaked


def used_splits(whole: Splits, data: Data) -> Splits:
    """Return a source's splits as a run uses them: a fraction of train, and rationales treated."""
    if data.rationale == "unrepeated":
        # A text that is frequent in the source may stand once in a split, or in a part of train.
        often = repeated_rationales(whole.everything)
        train, dev, test = (_without(part, often) for part in whole.parts.values())
        whole = replace(whole, train=train, dev=dev, test=test)
    used = whole.parts | {"train": subset(whole.train, data.fraction, data.split_seed)}
    kind, _, share = data.rationale.partition(":")
    notes = whole.notes
    treated: dict[str, Sequence[Example]]
    if kind == "unleaked":
        masked, note = unleaked(used["train"], float(share), data.split_seed)
        treated = {n: _with(part, (mask(e, masked) for e in part)) for n, part in used.items()}
        notes = [*notes, note]
    else:
        treated = {n: corrupt(p, data.rationale, data.split_seed) for n, p in used.items()}
    return Splits(**treated, notes=notes, left_out=whole.left_out)


def corrupt(examples: Sequence[Example], treatment: str, seed: int) -> Sequence[Example]:
    """Return `examples` in the same order, with their rationales treated.

    - `given`: unchanged. All others leave at most one rationale of an example, its first.
    - `shuffled`: each example gets another's rationale, with a different text if possible.
    - `dropped:SHARE`: that share of the rationales is removed; a larger share drops those of a
      smaller one and more.
    - `truncated:SHARE`: each rationale loses that share of its words, rounded down, from its end.
    - `none`: all are removed.
    - `unrepeated`: those that 5 examples or more have are removed.

    Examples without a rationale stay so. `treatment` is one that the run config accepts, but for
    `unleaked`, which needs all of a run's splits.
    """
    kind, _, share = treatment.partition(":")
    if kind == "given":
        return examples
    if kind == "none":
        return _with(examples, (None for _ in examples))
    if kind == "unrepeated":
        return _without(examples, repeated_rationales(examples))
    if kind == "shuffled":
        return _shuffled(examples, seed)
    if kind == "dropped":
        return _dropped(examples, float(share), seed)
    if kind != "truncated":
        raise ValueError(f"unknown treatment of rationales: {treatment!r}")
    return _with(examples, (e.rationale and truncate(e.rationale, float(share)) for e in examples))


def truncate(text: str, share: float) -> str | None:
    """Return `text` without the last `share` of its words, rounded down; None if none is left."""
    words = list(re.finditer(r"\S+", text))
    # In floating point, 0.29 * 100 is slightly less than 29.
    kept = len(words) - int(share * len(words) + 1e-9)
    if kept == len(words):
        return text
    return text[: words[kept - 1].end()] if kept else None


def _with(examples: Sequence[Example], rationales: Iterable[str | None]) -> Examples:
    return Examples.of(examples).with_rationales(rationales)


def _without(examples: Sequence[Example], often: Container[str]) -> Examples:
    texts = (example.rationale for example in examples)
    return _with(examples, (None if text and same_words(text) in often else text for text in texts))


def _dropped(examples: Sequence[Example], share: float, seed: int) -> Examples:
    ids = [example.id for example in examples if example.rationale is not None]
    ids.sort(key=lambda identity: lot(seed, "dropped", identity))
    dropped = set(ids[: round(share * len(ids))])
    return _with(examples, (None if e.id in dropped else e.rationale for e in examples))


def _shuffled(examples: Sequence[Example], seed: int) -> Examples:
    """Arrange the examples in a ring in random order, grouping equal rationales, and rotate the
    rationales by the size of the largest group: that moves every rationale out of its group, or as
    many as possible if one text has more than half of the ring."""
    groups: dict[str, list[tuple[str, int]]] = {}
    for row, example in enumerate(examples):
        if example.rationale is not None:
            drawn = lot(seed, "shuffled", example.id)
            groups.setdefault(example.rationale, []).append((drawn, row))
    members = [(sorted(group), text) for text, group in groups.items()]
    members.sort(key=lambda member: member[0][0])
    ring = [(row, text) for group, text in members for _, row in group]
    turn = max((len(group) for group, _ in members), default=0)
    new: list[str | None] = [None] * len(examples)
    for index, (row, _) in enumerate(ring):
        new[row] = ring[(index + turn) % len(ring)][1]
    return _with(examples, new)
