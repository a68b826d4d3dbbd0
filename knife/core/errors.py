"""What a user sees: a mistake in the input, and numbers that are not finite."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what the user gave us: shown as plain lines, exit status 2, no traceback.

    Attributes:
        faults: one line a fault: where it is (file:line or dotted config key), what is wrong,
            what was expected and what to do.
    """

    def __init__(self, *faults: str) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(faults))

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, ...]]:
        return type(self), tuple(self.faults)


class NotFiniteError(RuntimeError):
    """A model's outputs are NaN or infinite; the same work would come to the same again."""


class TrainingDivergedError(NotFiniteError):
    """Loss, gradient, weights or outputs became NaN or infinite in a training."""


class SessionLostError(Exception):
    """The Ray session of this process died; the message says of what, and how to resume."""


class WorkFailedError(Exception):
    """The work came to nothing, and why is known: shown as plain lines, exit status 1, no
    traceback."""

    def __init__(self, *lines: str) -> None:
        self.lines = lines
        super().__init__("\n".join(lines))


def raise_faults(faults: Iterable[str]) -> None:
    """Raise one `UserError` with all of `faults`; do nothing where there is none."""
    faults = list(faults)
    if faults:
        raise UserError(*faults)


def nearest(name: str, known: Iterable[str]) -> str:
    """Words for a message about an unknown `name`: the nearest known one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
