"""What happens while stages are made, told to whoever asked for them."""

from collections.abc import Iterator
from dataclasses import dataclass

from knife.plan.schedule import Schedule, Work


@dataclass(frozen=True)
class Started:
    """Stages are under way, in the slot with this number; again, if they were before."""

    work: Work
    slot: int


@dataclass(frozen=True)
class Made:
    """Stages are in the store."""

    work: Work
    slot: int


@dataclass(frozen=True)
class Pruned:
    """A training was ended early, by whoever judges its evaluations."""

    work: Work
    slot: int


@dataclass(frozen=True)
class Failed:
    """Stages cannot be made; an error of the user's input ends everything."""

    work: Work
    error: Exception


@dataclass(frozen=True)
class Note:
    """Something that the user should know, in one sentence."""

    text: str


Event = Started | Made | Pruned | Failed | Note


def failures(schedule: Schedule, work: Work, error: Exception) -> Iterator[Failed]:
    """Note in the schedule that something failed; yield this, and what fails because of it."""
    for each in [work, *schedule.failed(work, error)]:
        assert each.error
        yield Failed(each, each.error)
