"""Outputs that are not finite: no answer can be read from them, so the caller's work fails."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from knife.core.errors import NotFiniteError


def refuse_not_finite(
    ids: Sequence[str], values: Sequence[Sequence[float] | None], what: str = "the outputs"
) -> None:
    """Refuse outputs if any number in them is NaN or infinite.

    Args:
        ids: the examples' ids.
        values: the outputs for each example; None counts as not finite.
        what: the name of the values in the message.

    Raises:
        NotFiniteError: names the first examples.
    """
    bad = [
        name
        for name, numbers in zip(ids, values, strict=True)
        if numbers is None or not all(map(math.isfinite, numbers))
    ]
    if bad:
        raise NotFiniteError(
            f"{what} are not finite for {len(bad)} of {len(ids)} examples: {named(bad)}"
        )


@contextmanager
def in_stage(label: str) -> Iterator[None]:
    """Put the stage's label before the message of a `NotFiniteError` raised inside."""
    try:
        yield
    except NotFiniteError as error:
        raise type(error)(f"{label}: {error}") from None


def named(ids: Sequence[str], most: int = 10) -> str:
    """Return the first `most` distinct ids, and how many more there are."""
    once = list(dict.fromkeys(ids))
    more = f" and {len(once) - most} more" if len(once) > most else ""
    return f"{', '.join(once[:most])}{more}"
