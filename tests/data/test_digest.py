"""The digest changes with what it covers, and only with that."""

from dataclasses import replace

import pytest

from knife.data.digest import digests
from knife.data.example import Example

ONE = Example("1", "Is snow warm?", ("yes", "no"), 1, "Snow is frozen.")
TWO = Example("2", "Is lava warm?", ("yes", "no"), 0, None)


def digest(examples: list[Example], rationales: bool) -> str:
    return digests(examples)[rationales]


def test_is_pinned_from_release_to_release() -> None:
    # It is part of the store's keys: with another value everything would be retrained.
    assert digest([ONE, TWO], rationales=True) == "0e8dd41e2a9dfa26"
    assert digest([ONE, TWO], rationales=False) == "6f0aed56132c5ce2"


@pytest.mark.parametrize(
    "changed",
    [
        replace(ONE, id="3"),
        replace(ONE, question="Is snow hot?"),
        replace(ONE, choices=("no", "yes")),
        replace(ONE, answer=0),
    ],
)
def test_covers_all_that_a_student_sees(changed: Example) -> None:
    for rationales in (True, False):
        assert digest([changed, TWO], rationales) != digest([ONE, TWO], rationales)


def test_covers_the_order() -> None:
    assert digest([TWO, ONE], rationales=True) != digest([ONE, TWO], rationales=True)


@pytest.mark.parametrize("rationale", [None, "", "Snow is cold."])
def test_covers_rationales_only_when_asked(rationale: str | None) -> None:
    changed = [replace(ONE, rationale=rationale), TWO]
    assert digest(changed, rationales=False) == digest([ONE, TWO], rationales=False)
    assert digest(changed, rationales=True) != digest([ONE, TWO], rationales=True)
