"""What is suspicious in rationales and questions; all texts are invented."""

from dataclasses import replace

import pytest

from knife.data.check import check
from knife.data.example import Example, Splits
from knife.data.suspicious import repeated_lines, suspicious
from knife.data.treatment import corrupt


def example(rationale: str | None, n: int = 0, answer: int = 1) -> Example:
    return Example(
        f"e{n}", f"question {n} ?", ("a cat", "two dogs", "three hens"), answer, rationale
    )


@pytest.mark.parametrize(
    ("rationale", "letter"),
    [
        ("Twelve less four is eight. Answer: B", 1),
        ("Twelve less four is eight.\nCorrect answer - B", 1),
        ("Ans. C. Hens lay eggs", 2),
        ("so the right option is (b).", 1),
        ("ANSWER IS C", 2),
        ("The answer is a cat, which purrs", None),
        ("Answer: A cat purrs", None),
        ("The answer B's friend gave is wrong: answer C", 2),
        ("Vitamin B keeps you well", None),
        ("Answer: F", None),
    ],
)
def test_letters_of_choices(rationale: str, letter: int | None) -> None:
    found = suspicious([example(rationale, answer=1)])
    assert found.letters == (letter is not None, letter == 1)


def test_letters_are_counted_with_how_many_are_right() -> None:
    examples = [example(f"So it is. Answer: {'BBBC'[n]}", n) for n in range(4)]
    assert suspicious(examples).lines() == [
        "rationales that name a choice by its letter: 4 (100.0%), the right one in 75%"
    ]


@pytest.mark.parametrize("text", ["N/A", "-", ".", "dummy", "no idea", "42 + 1 = 43"])
def test_placeholders(text: str) -> None:
    assert suspicious([example(text)]).empty == 1
    assert suspicious([example(f"{text} since cats purr")]).empty == 0


def test_texts_that_run_together_and_snippets() -> None:
    glued = ["Cats purr.Dogs bark and hens lay", "answer is thisThe cat sat on it"]
    assert suspicious([example(text, n) for n, text in enumerate(glued)]).glued == 2
    assert suspicious([example("McDonald sells iPhones in New York.")]).glued == 0
    snippets = ["see https://example.org for more", "cats ... purr at night"]
    assert suspicious([example(text, n) for n, text in enumerate(snippets)]).snippets == 2


def test_questions_twice_in_a_split() -> None:
    twice = replace(example("r", 1), id="other", question="Question 1  ?")
    assert suspicious([example("r", 1), twice, example("r", 2)]).repeated == 1


def test_a_rationale_of_many_examples_is_told_and_can_be_removed() -> None:
    """Over all splits: what is held out of train for dev has the same texts."""
    same = [example("It is the best option.", n) for n in range(7)]
    own = [example(f"reason {n}", n) for n in range(7, 20)]
    whole = [*same, *own, example(None, 20)]
    (line,) = repeated_lines(whole)
    assert line.startswith("rationales that 5 examples or more have: 1 text in 7 of 20 (35.0%)")
    report = check(Splits(whole[3:], [replace(e, id=f"d{e.id}") for e in whole[:3]], own))
    assert any("1 text in 7 of 33" in note for note in report.notes)
    treated = corrupt(whole, "unrepeated", seed=0)
    assert [e.rationale for e in treated] == [None] * 7 + [e.rationale for e in own] + [None]
    assert repeated_lines(treated) == []


def test_answers_that_are_always_in_one_place() -> None:
    always = [replace(example("r", n), choices=(f"x{n}", f"y{n}")) for n in range(30)]
    report = check(Splits(always, always[:2], always[:2]))
    assert "every answer of train is choice 2: a model could learn the place alone" in report.notes
    mixed = [*always[1:], replace(always[0], answer=0)]
    assert not any("every answer" in note for note in check(Splits(mixed, [], [])).notes)
