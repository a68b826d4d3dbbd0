"""Exact match and token F1 of generated answers."""

import pytest

from knife.stats.text_match import exact_match, token_f1


@pytest.mark.parametrize(
    ("text", "answer", "match", "f1"),
    [
        ("The Swamp.", "a swamp", True, 1.0),
        ("in the swamp", "swamp", False, 2 / 3),
        ("red red", "red", False, 2 / 3),
        ("forest", "swamp", False, 0.0),
        ("", "swamp", False, 0.0),
        # Nothing is left of these answers without articles and punctuation.
        ("", "the", False, 0.0),
        ("", "A", False, 0.0),
        ("B", "A", False, 0.0),
        ("a.", "A", True, 1.0),
        ("-", "+", False, 0.0),
        ("+", "+", True, 1.0),
        ("", "", True, 1.0),
        ("ÄRGER", "ärger", True, 1.0),
    ],
)
def test_known_pairs(text: str, answer: str, match: bool, f1: float) -> None:
    assert exact_match(text, answer) is match
    assert token_f1(text, answer) == pytest.approx(f1)
    assert token_f1(answer, text) == pytest.approx(f1)
