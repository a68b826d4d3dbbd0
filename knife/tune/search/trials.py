"""The results of a sweep's ended trials."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

State = Literal["finished", "pruned", "stopped", "failed"]
# The steps after the search by their names, which are those of their folders, in words.
LATER_STEPS = {
    "seeds": "more seeds for the best",
    "baseline": "settings of finetune",
    "final": "winner and finetune",
}


@dataclass(frozen=True)
class TrialRow:
    """One trial of a sweep.

    Attributes:
        number: its place in the sweep, from 1.
        point: value by dotted config key of the space.
        state: finished; pruned by the scheduler; stopped as the budget ended; or failed.
        score: the sweep's metric at the best epoch, mean over the seeds; None without one.
        seconds: how long it took in the search, including the teacher if this trial trained it;
            more seeds of the best trials do not count, so that trials can be compared.
        by_epoch: best score so far by epoch, of the search's first seed.
        times: when those were reported, Unix seconds.
        scores: score by student seed.
        tests: accuracy on test by student seed, if the sweep evaluates on test.
        students: key of the student in the store, by seed.
        error: why it failed.
    """

    number: int
    point: dict[str, Any]
    state: State
    score: float | None
    seconds: float
    by_epoch: dict[int, float] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    tests: dict[int, float] = field(default_factory=dict)
    students: dict[int, str] = field(default_factory=dict)
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the values, JSON-ready."""
        return asdict(self)


def read_rows(path: Path) -> list[TrialRow]:
    """Read the rows in a file."""
    return TypeAdapter(list[TrialRow]).validate_json(path.read_bytes())


def first_line(error: str | None) -> str:
    """Return the first line of a trial's error."""
    return next(iter((error or "").strip().splitlines()), "unknown error")
