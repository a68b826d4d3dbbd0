"""Outputs that are not finite: no answer can be read from them, so whoever asked has failed."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from knife.core.errors import NotFiniteError


def refuse_not_finite(
    ids: Sequence[str], values: Sequence[Sequence[float] | None], what: str = "the outputs"
) -> None:
    """Refuse outputs of which a number is NaN or infinite.

    Args:
        ids: the examples' ids.
        values: what each came to; None is not finite.
        what: what the values are, in words.

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
    """Say of which stage the numbers are that are not finite."""
    try:
        yield
    except NotFiniteError as error:
        raise type(error)(f"{label}: {error}") from None


def named(ids: Sequence[str], most: int = 10) -> str:
    """The first of some ids, each once, and how many more there are."""
    once = list(dict.fromkeys(ids))
    more = f" and {len(once) - most} more" if len(once) > most else ""
    return f"{', '.join(once[:most])}{more}"
