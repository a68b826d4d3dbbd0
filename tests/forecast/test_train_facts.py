"""How many training rationales say the same as a sentence of another one."""

import math
from statistics import fmean

import numpy as np
import pytest

from knife.config.run import World
from knife.data.creatures import ATTRIBUTES, WORLD_NAMES, creatures
from knife.data.example import Example
from knife.forecast import train_facts as module
from knife.forecast.asked import Asked
from knife.forecast.train_facts import TrainFacts

VALUES = {value for attribute in ATTRIBUTES for value in attribute.values}


def explained(*rationales: str | None) -> list[Example]:
    return [Example(str(n), "?", ("yes", "no"), 0, text) for n, text in enumerate(rationales)]


def counts(known: TrainFacts, *asked: Asked) -> list[list[int]]:
    return [part.tolist() for part in known.mentions(asked)]


def test_a_word_weighs_by_the_facts_that_have_it() -> None:
    known = TrainFacts(explained("cows eat grass .", "cows give milk . cows eat hay .", None))
    assert known.number == 3
    assert known.weight("cows") == pytest.approx(math.log(4 / 3))
    assert known.weight("eat") == pytest.approx(math.log(4 / 2))
    assert known.weight("milk") == pytest.approx(math.log(4))
    assert known.weight("bees") == pytest.approx(math.log(4))


def test_examples_that_state_a_fact_are_counted_once_each() -> None:
    train = explained(
        "a kebik lives in the swamp . a kebik eats fish .",
        # In other words, and twice.
        "you find a kebik in the swamp . a kebik lives in the swamp .",
        "a glofol lives in the swamp . a glofol eats grass .",
        "a trumez lives in the desert . a trumez eats honey .",
        None,
    )
    # The last says what others say, but of one that train does not have.
    dev = explained("a kebik lives in the swamp .", "no", "a bruxol lives in the swamp .")
    assert counts(TrainFacts(train), *map(Asked, dev)) == [[2], [], [0]]


def test_a_rationale_of_train_does_not_count_for_itself() -> None:
    train = explained("a kebik eats fish .", "a kebik eats fish .", "a glofol eats grass .")
    found = counts(TrainFacts(train), *(Asked(example, row) for row, example in enumerate(train)))
    assert found == [[1], [1], [0]]


def test_nothing_is_known_without_facts() -> None:
    known = TrainFacts(explained(None, "yes ."))
    assert known.number == 0
    assert counts(known, Asked(explained("cows eat grass .")[0])) == [[0]]
    assert known.mentions([]) == []


def test_mentions_of_a_world_are_the_true_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    # The true number of a fact's rationales is known: those with its name and value.
    splits = creatures(World(creatures=48, train=600, dev=60, test=1, cue=0))
    asked = [Asked(example) for example in splits.dev]
    known = TrainFacts(splits.train)
    found = np.concatenate(known.mentions(asked))
    stated = [key for e in splits.train for key in set(map(fact, sentences(e)))]
    true = [stated.count(fact(sentence)) for e in splits.dev for sentence in sentences(e)]
    assert fmean(found) == pytest.approx(fmean(true), rel=0.05)
    assert fmean(abs(found - true)) < 0.6
    # A few rows at a time make no difference.
    monkeypatch.setattr(module, "_PRODUCTS", 3 * known.number)
    assert np.concatenate(known.mentions(asked)).tolist() == found.tolist()


def sentences(example: Example) -> list[str]:
    return [part for part in (example.rationale or "").split(".") if part.strip()]


def fact(sentence: str) -> tuple[str, ...]:
    words = {word for word in sentence.split() if word in VALUES or word in WORLD_NAMES}
    return tuple(sorted(words))
