"""Verdicts of the shipped forecast on clear cases, and what it says would change them."""

import math
from dataclasses import replace

import pytest

from knife.config.run import World
from knife.data.creatures import creatures
from knife.data.example import Splits
from knife.forecast.features import LEVELS, Features
from knife.forecast.forecast import Scores, forecast, likelihood, of_splits
from knife.forecast.gain import Expected, Room

# Facts that 12 or more rationales state, about the question, which does not tell them.
GOOD = Features(
    examples=1000, explained=1.0, asked=100, own=False, facts=2.0, mentions=15.0,
    mean_mentions=15.0, at_least={level: float(level <= 12) for level in LEVELS}, fit=1.0, told=0.0,
    leak=0.0, question=0.5, chance=0.5,
)  # fmt: skip
NEVER = dict.fromkeys(LEVELS, 0.0)
USEFUL = Scores(1.0, 0.5, 0.5)


@pytest.mark.parametrize("teacher", [None, USEFUL])
def test_facts_that_recur_make_a_gain_likely(teacher: Scores | None) -> None:
    found = forecast(GOOD, teacher)
    assert found.verdict == "likely"
    assert found.expected
    assert found.expected.low < found.expected.gain < found.expected.high
    assert found.expected.gain > 20
    assert found.sentence().startswith("likely that knife gains 5 points or more over finetune: +")


@pytest.mark.parametrize("teacher", [None, USEFUL])
def test_facts_that_do_not_recur_make_it_unlikely(teacher: Scores | None) -> None:
    found = forecast(replace(GOOD, at_least=NEVER), teacher)
    assert found.expected
    assert (found.verdict, found.expected.gain) == ("unlikely", 0)
    assert found.notes == (
        "100 % of the facts are in no training rationale, so that no student can remember them: "
        "knife needs questions about facts that recur",
    )


def test_questions_about_what_train_does_not_name_make_it_unlikely() -> None:
    found = forecast(replace(GOOD, familiar=0.0), USEFUL)
    assert found.expected
    assert (found.verdict, found.expected.gain) == ("unlikely", 0)
    assert found.notes[-1].startswith("test has words that train and dev do not have: no student")
    assert forecast(replace(GOOD, familiar=0.9), USEFUL).verdict == "likely"


def test_there_is_more_to_gain_than_facts() -> None:
    room = Scores(0.95, 0.8, 0.6).room
    assert (room.facts, room.task) == pytest.approx((15, 20))
    # A student that knows more than the teacher without rationales.
    room = Scores(0.95, 0.5, 0.6).room
    assert (room.facts, room.task) == pytest.approx((35, 0))
    assert Scores(0.5, 0.6, 0.7).room.total == 0
    # Data alone: of 50 points that a classifier lacks, questions tell half, and labels are few.
    room = Room.of(replace(GOOD, told=0.5, examples=25))
    assert (room.facts, room.task) == pytest.approx((30, 20))
    # Nothing recurs, but the teacher has learned more from as many examples.
    found = forecast(replace(GOOD, at_least=NEVER), Scores(0.95, 0.95, 0.55))
    assert found.expected
    assert found.expected.gain > 5


def test_a_teacher_that_does_not_need_rationales_makes_it_unlikely() -> None:
    assert forecast(GOOD, Scores(0.9, 0.9, 0.9)).verdict == "unlikely"
    weak = forecast(GOOD, Scores(0.6, 0.55, 0.55))
    assert weak.expected
    assert weak.expected.gain < 6
    assert [note.partition(":")[0] for note in weak.notes] == [
        "a stronger teacher model, or one trained longer, if it were always right with rationales"
    ]


def test_few_rationales_say_nothing() -> None:
    assert forecast(replace(GOOD, asked=19, at_least=NEVER)).verdict == "unknown"
    found = forecast(replace(GOOD, asked=19))
    assert found.verdict == "unknown"
    assert found.notes[0] == "only 19 rationales could be looked at: give more examples a rationale"


def test_open_answers_need_the_teacher() -> None:
    opened = replace(GOOD, question=None, chance=None)
    found = forecast(opened)
    assert (found.verdict, found.expected) == ("unknown", None)
    assert found.sentence() == "unknown that knife gains 5 points or more over finetune"
    assert "knife forecast --teacher" in found.notes[0]
    assert forecast(opened, USEFUL).verdict == "likely"


def test_more_to_gain_than_was_ever_measured_is_unknown_unless_nothing_recurs() -> None:
    found = forecast(replace(GOOD, question=0.2, chance=0.2))
    assert found.verdict == "unknown"
    assert found.notes[0].startswith("there may be 80 points to gain, more than in any condition")
    assert forecast(replace(GOOD, question=0.2, chance=0.2, at_least=NEVER)).verdict == "unlikely"


def test_what_would_change_is_named_only_if_it_would() -> None:
    often = replace(GOOD, at_least=dict.fromkeys(LEVELS, 1.0))
    assert not forecast(often, USEFUL).notes
    rare = replace(GOOD, at_least={level: float(level <= 3) for level in LEVELS})
    assert forecast(rare).notes[0].startswith("more questions about the same facts: with four ")
    unfit = replace(GOOD, fit=0.5, told=0.5)
    assert any(note.startswith("better rationales, ") for note in forecast(unfit).notes)
    easy = forecast(replace(GOOD, question=0.98))
    assert easy.notes == (
        "the question alone gives the answer away: finetune has little left to gain",
    )
    assert easy.verdict == "unlikely"


@pytest.mark.parametrize(
    ("worth", "said"), [(1, "likely"), (0.8, "likely"), (0.5, "unknown"), (0.2, "unlikely")]
)
def test_a_verdict_needs_four_of_five(worth: float, said: str) -> None:
    assert likelihood(Expected(6, 0, 12, worth)) == said


def test_lines_say_what_was_read() -> None:
    text = "\n".join(forecast(GOOD, Scores(0.99, 0.625, 0.5)).lines())
    for words in (
        "in 100 rationales of dev, the median one is stated by 15 of 1,000 training examples, and "
        "100 % by 5 or more",
        "a classifier of the question alone: 50 % right",
        "the teacher on dev: 99 % right with rationales, 62.5 % without; a finetuned student: 50 %",
    ):
        assert words in text
    own = forecast(replace(GOOD, own=True, question=None)).lines()
    assert "rationales of train, " in own[1]
    assert not any("classifier" in line for line in own)


def test_data_without_rationales_have_no_forecast() -> None:
    splits = creatures(World(train=40, dev=20, test=20))
    bare = [replace(example, rationale=None) for example in splits.train]
    assert of_splits(Splits(bare, splits.dev, splits.test)) is None
    found = of_splits(splits)
    assert found
    assert found.expected
    assert math.isfinite(found.expected.high)
