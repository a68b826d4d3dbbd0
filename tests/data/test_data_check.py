"""The data check reports what a user should know, such as a lack of rationales."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import pytest

from knife.data.check import Words, check, rationale_errors, repeated_questions
from knife.data.example import Example, Splits

TRAIN = [
    Example("1", "Where do owls sleep?", ("a tree", "the sea"), 0, "Owls rest in A  TREE-top."),
    Example("2", "What is ice?", ("water", "milk", "air"), 0, "It is watery when warm."),
    Example("3", "What is fog made of?", ("air", "C++", "milk"), 1, "It is written in c."),
    Example("4", "Who barks?", ("dogs", "cats"), 1, None),
]
YES_NO = [
    Example("5", "Is ice cold?", ("yes", "no"), 0, "Yes, it is."),
    Example("6", "Is fire cold?", ("no", "yes"), 0, "No, it burns."),
    Example("7", "Is frost cold?", ("yes", "no"), 0, None),
]


def test_counts_of_a_split() -> None:
    report = check(Splits(TRAIN, YES_NO, []))
    train, dev, test = (report.splits[name] for name in ("train", "dev", "test"))
    assert (train.examples, dev.examples, test.examples) == (4, 3, 0)
    assert (train.fewest_choices, train.most_choices) == (2, 3)
    assert (dev.fewest_choices, dev.most_choices) == (2, 2)
    assert train.answers == {"answer index 0": 2, "answer index 1": 2}
    assert dev.answers == {"answer 'yes'": 2, "answer 'no'": 1}
    assert (train.rationales, dev.rationales, test.rationales) == (3, 2, 0)
    assert train.question_words == Words(mean=(4 + 3 + 5 + 2) / 4, low=2, median=3, high=5, most=5)
    assert train.rationale_words == Words(5, 5, 5, 5, 5)
    assert (test.question_words, test.rationale_words) == (None, None)


def test_leakage_is_of_whole_words_in_either_case() -> None:
    # "a tree" occurs; "water" only as a part of "watery"; "C++" only without its marks.
    assert check(Splits(TRAIN, [], [])).splits["train"].leakage == pytest.approx(2 / 3)


def test_leakage_says_nothing_where_choices_are_shared_or_rationales_missing() -> None:
    report = check(Splits(YES_NO, TRAIN[3:], []))
    assert [split.leakage for split in report.splits.values()] == [None, None, None]


def test_repeated_questions_are_found_in_whatever_spelling() -> None:
    again = Example("9", "what  is ICE?", ("air", "Water", "milk"), 1)
    other_choices = Example("10", "What is ice?", ("air", "water"), 1)
    splits = Splits(TRAIN, [again, other_choices], [again, TRAIN[3]])
    assert repeated_questions(splits) == [
        "1 of the 2 questions of dev are also in train",
        "2 of the 2 questions of test are also in train",
        "1 of the 2 questions of test are also in dev",
    ]
    assert repeated_questions(Splits(TRAIN, YES_NO, [])) == []


def test_report_as_dict_and_lines() -> None:
    report = check(Splits(TRAIN, YES_NO, [YES_NO[0]], notes=["dev became test"]))
    values = json.loads(json.dumps(asdict(report)))
    assert values["splits"]["train"]["rationales"] == 3
    assert values["notes"] == ["dev became test", "1 of the 1 questions of test are also in dev"]
    assert report.lines()[:7] == [
        "train: 4 examples",
        "  choices: 2 to 3",
        "  answers: answer index 0 50 %, answer index 1 50 %",
        "  words in a question: 3.5 (5 % of them at most 2, half 3, 95 % 5, all 5)",
        "  rationales: 3 (75 %)",
        "  words in a rationale: 5.0 (5 % of them at most 5, half 5, 95 % 5, all 5)",
        "  rationales that contain the answer: 66.7 %",
    ]
    assert report.lines()[-2:] == [
        "note: dev became test",
        "note: 1 of the 1 questions of test are also in dev",
    ]


def test_notes_are_not_said_twice() -> None:
    splits = Splits(TRAIN, TRAIN, [])
    noted = Splits(TRAIN, TRAIN, [], notes=repeated_questions(splits))
    assert check(noted).notes == check(splits).notes


def test_progress_counts_every_question() -> None:
    shown: list[tuple[str, int, list[int]]] = []

    @contextmanager
    def show(words: str, total: int) -> Iterator[Callable[[int], None]]:
        shown.append((words, total, []))
        yield shown[-1][2].append

    dev = [TRAIN[0], Example("20", "Who barks and bites?", ("dogs", "cats"), 0)]
    report = check(Splits(TRAIN, dev, YES_NO), show)
    assert [(words, total, sum(done)) for words, total, done in shown] == [
        ("checking", 9, 9),
        ("looking for near-duplicates", 5, 5),
    ]
    assert report == check(Splits(TRAIN, dev, YES_NO))


def test_open_answers_are_counted_as_such() -> None:
    examples = [
        Example("1", "Where do owls sleep?", ("in a tree",), 0, "They rest in a tree at day."),
        Example("2", "Where do bats sleep?", ("in a cave",), 0, "They hang from rock."),
        Example("3", "Where do jays sleep?", ("in a tree",), 0, "They nest up there."),
    ]
    report = check(Splits(examples, examples[:1], []))
    train = report.splits["train"]
    assert (train.open, train.fewest_choices) == (True, 0)
    assert train.leakage == pytest.approx(1 / 3)
    assert report.rationale_only is None
    assert report.lines()[:2] == [
        "train: 3 examples",
        "  open answers: 2 different, 66.7 % of them 'in a tree'",
    ]
    assert not any("choices" in line for line in report.lines())


def make(with_rationale: int, without: int) -> list[Example]:
    return [
        Example(str(n), "?", ("yes", "no"), 0, "because" if n < with_rationale else None)
        for n in range(with_rationale + without)
    ]


@pytest.mark.parametrize(("with_rationale", "without"), [(10, 90), (1, 0), (1, 9), (100, 0)])
def test_enough_rationales(with_rationale: int, without: int) -> None:
    assert rationale_errors(make(with_rationale, without), "knife") == []


def test_too_few_rationales() -> None:
    (error,) = rationale_errors(make(9, 91), "knife")
    assert error.startswith(
        "data: only 9 of 100 (9 %) training examples have a rationale, but the method knife needs "
        "at least 10 %: "
    )
    (error,) = rationale_errors(make(49, 51), "knife", share=0.5)
    assert "49 of 100 (49 %)" in error
    assert "at least 50 %" in error


def test_no_rationale() -> None:
    for examples in (make(0, 5), []):
        (error,) = rationale_errors(examples, "knife")
        assert error.startswith(f"data: none of {len(examples)} training examples have a rationale")
        assert rationale_errors(examples, "knife", share=0)
