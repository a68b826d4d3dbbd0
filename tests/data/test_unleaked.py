"""Words that give answers away are masked, no more of them than needed, and nothing else."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from knife.config.run import Data, World, parse
from knife.core.errors import UserError
from knife.data.creatures import creatures
from knife.data.example import Example, Splits
from knife.data.leaks import rationale_only
from knife.data.treatment import used_splits
from knife.data.unleaked import MASK

YES_NO = ("yes", "no")


def treated(train: Sequence[Example], share: float = 0.0, **parts: Sequence[Example]) -> Splits:
    splits = Splits(train, parts.get("dev", train[:1]), parts.get("test", train[:1]))
    return used_splits(splits, Data(source="x", rationale=f"unleaked:{share}"))


def accuracy(examples: object) -> float:
    found = rationale_only(list(examples))  # type: ignore[call-overload]
    assert found
    return float(found.accuracy)


def texts(examples: Sequence[Example]) -> dict[str, str | None]:
    return {example.id: example.rationale for example in examples}


def saying(answer: int) -> str:
    return f"so the answer is {YES_NO[answer]} ."


SAID = [Example(f"q{n}", f"is {n} odd?", YES_NO, n % 2, saying(n % 2)) for n in range(100)]


def test_an_answer_that_is_said_is_masked() -> None:
    found = treated(SAID, dev=SAID[:7], test=SAID[3:5])
    assert {example.rationale for example in found.everything} == {"so the answer is _ ."}
    assert (accuracy(SAID), accuracy(found.train)) == (1.0, 0.5)
    (note,) = found.notes
    # Both tell as much: the first by the alphabet leads.
    assert note == (
        "data.rationale=unleaked masks no, yes (2 words), in 100 of 100 rationales of train: "
        "they alone tell 50 % of the answers now, 100 % before (guessing 50 %)"
    )


def test_facts_that_tell_nothing_by_themselves_are_left_as_they_are() -> None:
    facts = creatures(World(creatures=32, train=200, dev=40, test=40)).train
    found = treated(list(facts))
    assert texts(found.train) == texts(facts)
    assert "masks no words, in 0 of 200 rationales" in found.notes[0]


def test_facts_are_kept_where_an_answer_is_said_besides() -> None:
    facts = creatures(World(creatures=32, train=200, dev=40, test=40)).train
    both = [
        replace(example, rationale=f"{example.rationale} so : {example.choices[example.answer]} .")
        for example in facts
    ]
    found = treated(both)
    assert texts(found.train) == {e.id: f"{e.rationale} so : {MASK} ." for e in facts}


def test_as_much_is_left_as_the_share_says() -> None:
    """One word tells 80 % of the answers, another one the rest."""
    rng = random.Random(0)
    rows = []
    for n in range(400):
        told = ("fine", "poor")[n % 2] if rng.random() < 0.8 else ("up", "down")[n % 2]
        rows.append(Example(f"q{n}", f"question {n}", YES_NO, n % 2, f"it is {told} ."))
    left = treated(rows, 0.3)
    assert {e.rationale for e in left.train} == {"it is _ .", "it is up .", "it is down ."}
    assert accuracy(left.train) == pytest.approx(0.6, abs=0.06)
    none = treated(rows, 0.0)
    assert {e.rationale for e in none.train} == {"it is _ ."}
    assert texts(treated(rows, 1.0).train) == texts(rows)


CITIES = ["paris", "london", "rome", "madrid", "vienna", "the hague"]


def cities(form: str) -> list[Example]:
    rng = random.Random(1)
    found = []
    for n in range(120):
        choices = rng.sample(CITIES, 3)
        right = n % 3
        rationale = form.format(right=choices[right], wrong=choices[right - 1])
        found.append(Example(f"q{n}", f"question {n}", tuple(choices), right, rationale))
    return found


def test_words_of_all_choices_are_masked_where_choices_differ() -> None:
    found = treated(cities("It is in {right}, not in {wrong}; The sea is near."))
    # "The" is a word of a choice, but tells nothing.
    assert set(texts(found.train).values()) <= {
        f"It is in {one}, not in {two}; The sea is near."
        for one in (MASK, f"the {MASK}")
        for two in (MASK, f"the {MASK}")
    }
    assert accuracy(found.train) == pytest.approx(1 / 3, abs=0.05)


def test_other_forms_of_these_words_are_masked_if_they_tell_the_answer() -> None:
    found = treated(cities("{right}ian people say so."))
    assert {e.rationale for e in found.train} <= {
        f"{MASK} people say so.",
        f"the {MASK} people say so.",
    }
    assert "those that begin alike" in found.notes[0]


def test_masks_do_not_tell_the_answer_of_a_split_that_is_not_trained() -> None:
    """Only train decides on words, so that labels of dev and test are not looked at."""
    flipped = [replace(e, answer=1 - e.answer) for e in SAID]
    one, other = treated(SAID, test=SAID), treated(SAID, test=flipped)
    assert [e.rationale for e in one.test] == [e.rationale for e in other.test]


def test_the_file_order_does_not_matter() -> None:
    one, other = treated(SAID[::-1]), treated(SAID)
    assert texts(one.train) == texts(other.train)
    assert one.notes == other.notes


def test_open_answers_are_refused() -> None:
    rows = [Example(f"q{n}", "what?", ("blue",), 0, "it is blue", None) for n in range(20)]
    opened = [replace(e, choices=("blue",)) for e in rows]
    with pytest.raises(UserError, match="unleaked needs choices"):
        treated(opened)


def test_a_share_is_needed() -> None:
    for value in ("unleaked", "unleaked:2", "unleaked:x"):
        with pytest.raises(UserError, match=r"unleaked:SHARE with a SHARE from 0 to 1"):
            parse({"name": "x", "data": {"source": "creatures", "rationale": value}})
