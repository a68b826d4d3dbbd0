"""When two texts count as the same, and how their difference is described otherwise."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knife.data.normal import difference, look_alike, normal

CAFE = "caf\u00e9"
CAFE_IN_TWO = unicodedata.normalize("NFD", CAFE)


@pytest.mark.parametrize(
    "text",
    [
        CAFE_IN_TWO,
        f"{CAFE}\u00a0",
        f"\u3000{CAFE}\u2009\t\r\n",
        f"\ufeff{CAFE}",
        f"{CAFE}\u200b",
        f"\u2060\u200e {CAFE_IN_TWO} \u200d",
    ],
)
def test_composition_and_what_is_around_make_no_difference(text: str) -> None:
    assert text != CAFE
    assert normal(text) == CAFE


def test_ascii_is_stripped_as_other_texts_are() -> None:
    """What takes the short way is what the long one would return, beside a letter beyond ASCII."""
    for number in range(128):
        around = f"{chr(number)}a{chr(number)}"
        assert normal(around) == normal(f"{chr(number)}\xe4{chr(number)}").replace("\xe4", "a")


@given(st.text())
def test_what_is_normal_stays(text: str) -> None:
    assert normal(normal(text)) == normal(text)


@pytest.mark.parametrize("other", ["Caf\u00e9", "cafe", "caf\u00e9 au lait", "CO\u2082"])
def test_other_texts_are_others(other: str) -> None:
    assert normal(other) != CAFE


def test_a_difference_inside_is_said_by_code_point() -> None:
    one, other = "not\u00a0yet ", "not yet"
    assert normal(one) != normal(other)
    assert look_alike(one, other)
    assert difference(one, other) == ("character 4 is U+00A0 (NO-BREAK SPACE), not U+0020 (SPACE)")
    assert difference("ab", "abc") == "character 3 is missing, not U+0063 (LATIN SMALL LETTER C)"
    assert not look_alike("yes", "no")
