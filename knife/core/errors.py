"""Errors that are shown to the user: bad input, non-finite numbers, failed work."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the user's input: shown as plain lines, exit status 2, no traceback.

    Attributes:
        errors: one line per error: where it is (file:line or dotted config key), what is wrong,
            what was expected and what to do.
    """

    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)
        super().__init__("\n".join(errors))

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, ...]]:
        return type(self), tuple(self.errors)


class NotFiniteError(RuntimeError):
    """A model's outputs are NaN or infinite; repeating the work would give the same result."""


class TrainingDivergedError(NotFiniteError):
    """Loss, gradient, weights or outputs became NaN or infinite during training."""


class TrainingPrunedError(Exception):
    """A training was ended early on purpose; what there is of it is of no use."""


class SessionLostError(Exception):
    """The Ray session of this process died; the message says why, and how to resume.

    Attributes:
        what: what happened, without advice.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f"{what}, and no work is possible without it; finished work is kept: run the same "
            "command again to resume"
        )

    def __reduce__(self) -> tuple[type["SessionLostError"], tuple[str]]:
        return type(self), (self.what,)


class WorkFailedError(Exception):
    """The work failed for a known reason: shown as plain lines, exit status 1, no traceback."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        super().__init__("\n".join(lines))


def raise_errors(errors: Iterable[str]) -> None:
    """Raise one `UserError` with all of `errors`, if there are any."""
    errors = list(errors)
    if errors:
        raise UserError(*errors)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint about an unknown `name` for a message: the closest known one, or all known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
