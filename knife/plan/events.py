"""What happens while stages are made, told to whoever asked for them."""

from collections.abc import Iterator
from dataclasses import dataclass

from knife.core.errors import WorkFailedError
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
class Failed:
    """Stages cannot be made; an error of the user's input ends everything."""

    work: Work
    error: Exception


@dataclass(frozen=True)
class Note:
    """Something that the user should know, in one sentence."""

    text: str


Event = Started | Made | Failed | Note


def failures(schedule: Schedule, work: Work, error: Exception) -> Iterator[Failed]:
    """Note in the schedule that something failed; yield this, and what fails because of it."""
    lost = schedule.failed(work)
    yield Failed(work, error)
    for each in lost:
        yield Failed(each, WorkFailedError(f"{each.label} needs {work.label}, which failed"))
