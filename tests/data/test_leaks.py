"""A model of rationales alone is right if they state the answer, and otherwise at chance."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from knife.config.run import World
from knife.data.creatures import creatures
from knife.data.example import Example
from knife.data.leaks import rationale_only
from knife.data.treatment import corrupt

PLACES = ("forest", "desert", "swamp", "mountain", "old harbour", "moor")


def questions(say: Callable[[random.Random, tuple[str, ...], int], str]) -> list[Example]:
    """Return three-choice questions, with rationales that `say` makes from choices and answer."""
    draw = random.Random(0)
    examples = []
    for number in range(300):
        choices, answer = tuple(draw.sample(PLACES, 3)), draw.randrange(3)
        rationale = say(draw, choices, answer)
        examples.append(Example(str(number), f"Where is {number}?", choices, answer, rationale))
    return examples


def test_rationales_that_say_the_answer_give_it_away() -> None:
    found = rationale_only(questions(lambda _, choices, answer: f"Look: the {choices[answer]}!"))
    assert found
    assert (found.accuracy, found.examples) == (1, 300)
    assert found.chance == pytest.approx(1 / 3)


def test_rationales_that_say_no_choice_are_at_chance_exactly() -> None:
    # All choices tie, and a tie counts by its share, at any position of the right answer.
    found = rationale_only(questions(lambda *_: "Nobody knows why."))
    assert found
    assert found.accuracy == pytest.approx(1 / 3)


def test_rationales_that_say_the_wrong_choices_give_the_answer_away() -> None:
    def wrong(_: random.Random, choices: tuple[str, ...], answer: int) -> str:
        others = [choice for place, choice in enumerate(choices) if place != answer]
        return f"Neither the {others[0]} nor the {others[1]}."

    found = rationale_only(questions(wrong))
    assert found
    assert found.accuracy == 1


def test_rationales_that_say_any_choice_are_near_chance() -> None:
    found = rationale_only(questions(lambda draw, choices, _: f"The {draw.choice(choices)}."))
    assert found
    # Three standard errors of 300 guesses.
    assert found.accuracy == pytest.approx(1 / 3, abs=0.09)


def test_a_shared_set_of_choices_is_told_by_words() -> None:
    draw = random.Random(0)
    said = ("it is so", "it is not so")
    examples = []
    for number in range(200):
        answer = int(number % 4 == 0)
        text = f"{said[answer]} {draw.choice(PLACES)}"
        examples.append(Example(str(number), "?", ("yes", "no"), answer, text))
    found = rationale_only(examples)
    assert found
    assert found.accuracy == 1
    assert found.chance == 0.75
    shuffled = rationale_only(corrupt(examples, "shuffled", 0))
    assert shuffled
    assert shuffled.accuracy == pytest.approx(0.75, abs=0.1)


def test_open_or_few_or_wordless_rationales_are_not_judged() -> None:
    examples = creatures(World(creatures=64, train=40, dev=1, test=1)).train
    assert rationale_only(examples)
    assert rationale_only([replace(e, rationale="?!") for e in examples]) is None
    assert rationale_only(examples[:4]) is None
    one_answer = [e for e in examples if e.choices == ("yes", "no") and e.answer == 0]
    assert rationale_only(one_answer) is None
    assert rationale_only([replace(e, choices=("yes",), answer=0) for e in examples]) is None
