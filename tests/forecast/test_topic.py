"""Whether rationales are about their questions, and say more than these."""

import pytest

from knife.config.run import World
from knife.data.creatures import creatures
from knife.data.example import Example
from knife.forecast.asked import Asked
from knife.forecast.topic import familiar, fit, told
from knife.forecast.train_facts import TrainFacts

QUESTIONS = ("does a kebik swim ?", "does a glofol swim ?", "does a trumez swim ?")
RATIONALES = ("a kebik eats fish .", "a glofol eats grass .", "a trumez eats honey .")


def asked(rationales: tuple[str, ...], questions: tuple[str, ...] = QUESTIONS) -> list[Asked]:
    return [
        Asked(Example(question, question, ("yes", "no"), 0, text))
        for question, text in zip(questions, rationales, strict=True)
    ]


def test_rationales_about_their_own_questions_fit_best() -> None:
    assert fit(asked(RATIONALES)) == 1


def test_rationales_about_other_questions_do_not_fit() -> None:
    assert fit(asked((*RATIONALES[1:], RATIONALES[0]))) == 0


def test_ties_count_half() -> None:
    # The first question has as much in common with the third rationale as with its own, and more
    # than with the second: 3/4. The second fits its own alone: 1. The third has nothing in common
    # with any: 1/2. Their mean, 3/4, is half way from chance to the best.
    assert fit(asked((RATIONALES[0], RATIONALES[1], "a kebik eats honey ."))) == pytest.approx(0.5)


def test_one_rationale_fits_nothing() -> None:
    assert fit(asked(RATIONALES[:1], QUESTIONS[:1])) == 0
    assert fit([]) == 0


@pytest.mark.parametrize("cue", [0.0, 0.5, 1.0])
def test_what_the_question_tells_is_found(cue: float) -> None:
    splits = creatures(World(creatures=48, train=600, dev=100, test=1, cue=cue))
    found = told([Asked(example) for example in splits.dev], TrainFacts(splits.train))
    assert found == pytest.approx(cue, abs=0.06)


def test_questions_about_what_train_does_not_know_are_not_familiar() -> None:
    train = creatures(World(creatures=24, train=200, dev=1, test=1)).train
    here, elsewhere = (
        creatures(World(creatures=24, train=1, dev=1, test=40, seed=s)) for s in (0, 1)
    )
    known = {word for example in train for word in example.question.split()}
    share = sum(known >= set(e.question.split()) for e in elsewhere.test) / 40
    assert 0 < share < 0.5
    assert familiar(train, here.test, here.test) == 1
    assert familiar(train, here.test, elsewhere.test) == pytest.approx(share)
    # Dev is no better than test.
    assert familiar(train, elsewhere.test, elsewhere.test) == 1
    assert familiar([], here.test, here.test) == 1


def test_nothing_is_told_without_facts() -> None:
    assert told([], TrainFacts([])) == 0
    one = asked(("yes .",), QUESTIONS[:1])
    assert told(one, TrainFacts([each.example for each in one])) == 0
