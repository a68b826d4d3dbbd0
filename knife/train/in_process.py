"""Makes stages one after another in this process, without Ray."""

from collections.abc import Generator, Iterable
from pathlib import Path

from knife.config.scale import Scale
from knife.core.errors import NotFiniteError, UserError
from knife.plan.events import Event, Made, Started, failures
from knife.plan.schedule import Schedule
from knife.plan.stage import Stage
from knife.train.context import PlainContext
from knife.train.stages import make_stages, settled


def in_process(stages: Iterable[Stage], address: Path | str, scale: Scale) -> Generator[Event]:
    """Make stages, each after those that it reads, and yield what happens."""
    schedule = Schedule(lambda _: 0.0)
    schedule.add(stages)
    with PlainContext() as context, settled():
        while work := schedule.take():
            yield Started(work, 0)
            try:
                make_stages(work.stages, address, scale, context)
            except (NotFiniteError, UserError) as error:
                yield from failures(schedule, work, error)
            else:
                schedule.done(work)
                yield Made(work, 0)
