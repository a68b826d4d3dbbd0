import io

import pytest
from rich.console import Console

from knife.report.table import render, sentence
from knife.stats.compare import Difference
from knife.stats.verdict import Ceiling, MethodVerdict, Verdict

BASE = MethodVerdict("finetune", 0.637, 0.601, 0.674, 0.031, 5, 400, None)


def method(name: str, accuracy: float, difference: Difference | None) -> MethodVerdict:
    return MethodVerdict(name, accuracy, 0.93, 0.968, 0.009, 5, 400, difference)


def found(*methods: MethodVerdict, ceiling: Ceiling | None = None) -> Verdict:
    return Verdict("finetune", 2.0, (BASE, *methods), ceiling, ())


def shown(verdict: Verdict) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    console.print(render(verdict))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


KNIFE = method(
    "knife", 0.949, Difference(31.2, 27.0, 35.4, 0.00001, 5, 0.00004, gained=640, lost=16)
)


def test_sentence_of_a_clear_difference() -> None:
    assert sentence(found(KNIFE)) == (
        "knife is 31.2 points above finetune "
        "(95 % interval 27.0 to 35.4, p < 0.001; 5 seeds, 400 test examples)."
    )


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (
            Difference(-4.0, -6.5, -1.5, 0.004, 3),
            "x is 4.0 points below finetune "
            "(95 % interval -6.5 to -1.5, p = 0.004; 3 seeds, 400 test examples).",
        ),
        (
            Difference(1.5, -2.0, 5.0, 0.314, 1, None, 0.06, 0.4, 4.96),
            "x is 1.5 points above finetune, which may be chance "
            "(95 % interval -2.0 to 5.0, p = 0.31; 1 seed, 400 test examples). "
            "An experiment like this can show differences of 5.0 or more.",
        ),
        (
            Difference(1.5, -0.1, 3.0, 0.03, 4, 0.06, 0.0002, 0.3, 2.2),
            "x is 1.5 points above finetune, which may be chance "
            "(95 % interval -0.1 to 3.0, p = 0.060; 4 seeds, 400 test examples). "
            "x is no worse than finetune by more than 2 points (p < 0.001).",
        ),
        (
            Difference(0.5, -0.9, 1.9, 0.4, 4, 0.4, 0.001, 0.02, 2.0),
            "x is 0.5 points above finetune, which may be chance "
            "(95 % interval -0.9 to 1.9, p = 0.40; 4 seeds, 400 test examples). "
            "x and finetune are equal to within 2 points (p = 0.020).",
        ),
        (
            Difference(0.0, 0.0, 0.0, 1.0, 3),
            "x and finetune are right on equally many examples (3 seeds, 400 test examples).",
        ),
        (
            Difference(50.0, None, None, None, 3),
            "x is 50.0 points above finetune (3 seeds, 400 test examples).",
        ),
        (None, "x answers 90.0 % right (5 seeds, 400 test examples)."),
    ],
)
def test_sentences(difference: Difference | None, words: str) -> None:
    assert sentence(found(method("x", 0.9, difference))) == words


def test_sentence_is_about_knife_or_else_the_best() -> None:
    low = method("teacher_init", 0.65, Difference(1.0, -1.0, 3.0, 0.4, 5))
    high = method("knife-best", 0.97, Difference(33.0, 30.0, 36.0, 0.0, 5))
    assert sentence(found(low, high)).startswith("knife-best is 33.0")
    assert sentence(found(low, high, KNIFE)).startswith("knife is 31.2")


def test_table_fits_a_terminal() -> None:
    other = method("a-rather-long-name-of-a-variant-somebody-chose", 0.6, KNIFE.difference)
    verdict = found(KNIFE, other, ceiling=Ceiling(0.998, 0.474))
    lines = shown(verdict)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "to finetune (95 %)" in text
    (knife,) = [line for line in lines if line.split()[:1] == ["knife"] and "(93" in line]
    expected = "knife 94.9 (93.0-96.8) +31.2 (27.0 to 35.4) < 0.001 640/16"
    assert " ".join(knife.split()) == expected
    (ceiling,) = [line for line in lines if "teacher, with " in line]
    assert ceiling.index("99.8") == knife.index("94.9"), "points are not aligned"
    assert any("teacher, without" in line and "47.4" in line for line in lines)
    assert " ".join(text.split()).endswith(sentence(verdict))


def test_table_without_ceiling_or_spread() -> None:
    alone = Verdict(
        "finetune",
        2.0,
        (MethodVerdict("knife", 0.5, None, None, None, 1, 4, None),),
        None,
        ("Note.",),
    )
    lines = shown(alone)
    assert "50.0" in "".join(lines)
    assert not any("teacher" in line or "-" in line for line in lines)
    assert lines[-1].strip() == "Note."
