"""An answer is matched to a choice, never by guessing."""

import unicodedata

import pytest

from knife.data.answer import find_answer
from knife.data.line_errors import LineError

YES_NO = ["yes", "no"]


def message(value: object, choices: list[str]) -> str:
    found = find_answer(value, choices)
    assert isinstance(found, LineError)
    assert found.message.startswith("answer: ")
    return found.message


@pytest.mark.parametrize(
    ("value", "choices", "index"),
    [
        ("no", YES_NO, 1),
        (1, YES_NO, 1),
        ("no\u00a0", YES_NO, 1),
        ("no", ["yes", " no\u200b"], 1),
        (unicodedata.normalize("NFD", "h\u00f4tel"), ["caf\u00e9", "h\u00f4tel"], 1),
        # A string is text, even if it looks like a number.
        ("1", ["1", "2"], 0),
        ("B", ["B", "A"], 0),
        ("A", ["B", "A"], 1),
        # Text and index name the same choice.
        (1, ["0", "1"], 1),
        # It is not the text of any choice.
        (0, ["1", "2", "3"], 0),
        (1, ["10", "20"], 1),
        (1, ["1 leg", "2 legs"], 1),
    ],
)
def test_text_or_index(value: object, choices: list[str], index: int) -> None:
    assert find_answer(value, choices) == index


@pytest.mark.parametrize(
    ("value", "choices", "other"),
    [
        (1, ["1", "2", "3", "4"], 'the index of "2"'),
        (1, ["2", "1.0", " 1 "][::-1], 'the index of "1.0"'),
        (0, ["1", "0"], 'the index of "1"'),
        (2, ["\uff12", "x", "y"], 'the index of "y"'),
        (4, ["1", "2", "3", "4"], "no index"),
        (1000, ["1,000", "2,000"], "no index"),
    ],
)
def test_an_integer_that_is_another_choices_text_is_refused(
    value: int, choices: list[str], other: str
) -> None:
    said = message(value, choices)
    assert f"answer: {value} is the text of the choice" in said
    assert f"but {other} (from 0)" in said
    assert "write the text of the choice that is meant" in said


@pytest.mark.parametrize(
    ("value", "choices", "hint"),
    [
        (
            "A",
            YES_NO,
            'letters are not accepted: for "A" write the choice\'s text "yes", or its index 0',
        ),
        ("(b)", YES_NO, 'for "(b)" write the choice\'s text "no", or its index 1'),
        ("C", YES_NO, 'is not among the choices ["yes", "no"]'),
        ("1", YES_NO, "a number in quotation marks is a text; an index has none"),
        ("No", YES_NO, 'did you mean "no"?'),
        ("not\u00a0yet", ["yes", "not yet"], "character 4 is U+00A0 (NO-BREAK SPACE), not U+0020"),
        ("CO\u2082", ["CO2", "H2O"], "character 3 is U+2082 (SUBSCRIPT TWO), not U+0032"),
        (2, YES_NO, "index must be from 0 to 1, but got 2"),
        (10**30, YES_NO, "index must be from 0 to 1, but got 1000"),
        (1.0, YES_NO, "but got 1.0; an index is an integer"),
        (True, YES_NO, "but got true; write the text"),
        (["yes"], YES_NO, 'must be one of the choices or its index, but got ["yes"]'),
    ],
)
def test_what_is_no_choice_says_what_to_write(value: object, choices: list[str], hint: str) -> None:
    assert hint in message(value, choices)
