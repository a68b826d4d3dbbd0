"""A run's progress on stderr: drawn in a terminal, plain lines anywhere else."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.spinner import Spinner
from rich.text import Text

from knife.core.background import background
from knife.core.words import counted
from knife.plan.plan import Plan
from knife.plan.stage import Stage
from knife.terminal.console import (
    LINE_SECONDS,
    bar,
    can_draw,
    clock,
    drawn,
    progress_console,
    say_line,
)
from knife.terminal.progress import Progress
from knife.train.follow import Follower
from knife.train.journal import Row

LOOK_SECONDS = 0.25


@contextmanager
def display(
    stages: list[Stage], plan: Plan, follower: Follower, links: Sequence[str] = ()
) -> Iterator[None]:
    """Show the stages as they are made, until the context ends.

    `links` are lines on where else to look; those added during the work are shown too.
    """
    console = progress_console()
    scale = plan.config.scale
    where = counted(scale.workers, "Ray worker")
    where = "this process" if scale.launcher == "process" else where
    share = f"{len(stages)} of {counted(len(plan.stages), 'stage')}"
    say_line(console, f"{share} to make, in {where}; starting …")
    shown = _Display(Progress(stages, plan), follower, links, console)
    with drawn(console, shown.drawing) if shown.draws else nullcontext(), shown.looking():
        yield


@contextmanager
def no_display(*_: object) -> Iterator[None]:
    """Show nothing."""
    yield


class _Display:
    """What is shown of a run: the stage under way, results of finished ones, links and notes.

    In a terminal the stage under way is drawn below the rest. Elsewhere there is a line at its
    first progress and every 10 s.
    """

    def __init__(
        self, progress: Progress, follower: Follower, links: Sequence[str], console: Console
    ) -> None:
        self.progress, self.follower, self.links, self.console = progress, follower, links, console
        self.draws = can_draw(console)
        self._spinner = Spinner("dots")
        self._links_said = 0
        # The stage, time and row of the last line on a stage under way.
        self._moving, self._said = -1, 0.0
        self._last: Row | None = None

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look from a thread several times a second, and once more at the end."""

        def look(stop: threading.Event) -> None:
            self._look()
            while not stop.wait(LOOK_SECONDS):
                self._look()

        try:
            with background("knife-display", look):
                yield
        finally:
            self._look(last=True)

    def _look(self, *, last: bool = False) -> None:
        """Update the progress, and print what is new."""
        number = self.progress.number
        for stage in self.progress.look(self.follower.newest(), last=last):
            number += 1
            result = self.progress.result(stage)
            if self.draws:
                where = f"[dim]{number}/{len(self.progress.stages)}[/dim]"
                self.console.print(f"[green]✓[/green] {where} {stage.label}: {result}")
            else:
                self._line(number, f"{stage.label}: done, {result}")
        for link in self.links[self._links_said :]:
            say_line(self.console, link)
            self._links_said += 1
        for note in self.follower.take_notes():
            say_line(self.console, f"note: {note}")
        if not self.draws:
            self._under_way()

    def _under_way(self) -> None:
        """Print a line on the stage under way, from time to time."""
        progress = self.progress
        if progress.stage is None or progress.row is None or progress.row == self._last:
            return
        if progress.number > self._moving or time.monotonic() - self._said >= LINE_SECONDS:
            self._moving, self._said = progress.number, time.monotonic()
            self._last = progress.row
            of_stage, of_run = _left(progress)
            of_run = of_run.replace("left", "of the run")
            parts = [f"{progress.units}/{progress.total}", *_numbers(progress), of_stage, of_run]
            words = ", ".join(filter(None, parts))
            self._line(progress.number + 1, f"{progress.stage.label}: {words}")

    def _line(self, number: int, text: str) -> None:
        say_line(self.console, f"[{number}/{len(self.progress.stages)}] {text}")

    def drawing(self) -> list[Text]:
        """Return the stage under way in lines that fit 40 columns."""
        progress = self.progress
        # Another thread updates the progress.
        with progress.lock:
            if progress.stage is None:
                return [Text("writing the verdict …")]
            turn = self._spinner.render(self.console.get_time())
            assert isinstance(turn, Text)
            where = f" stage {progress.number + 1} of {len(progress.stages)}: "
            of_stage, of_run = _left(progress)
            share = progress.units / progress.total if progress.total else 0.0
            units = ", ".join(filter(None, [f" {progress.units}/{progress.total}", of_stage]))
            lines = [
                Text.assemble(turn, where, (progress.stage.label, "bold")),
                Text.assemble("  ", bar(self.console, share), units),
            ]
            # The last row of an evaluation has only its result, shown when the stage is done.
            if numbers := ", ".join(_numbers(progress)) if progress.row else "starting":
                lines.append(Text(f"  {numbers}", style="dim"))
            if of_run and progress.number + 1 < len(progress.stages):
                lines.append(Text(f"  whole run: {of_run}", style="dim"))
            return lines


def _numbers(progress: Progress) -> list[str]:
    """Return loss, dev accuracy and rate, as far as they are known."""
    values = progress.row["metrics"] if progress.row else {}
    numbers = []
    if "loss" in values:
        numbers.append(f"loss {values['loss']:.3f}")
    if "dev_accuracy" in values:
        numbers.append(f"dev {100 * values['dev_accuracy']:.1f} %")
    if "examples_per_second" in values:
        numbers.append(f"{values['examples_per_second']:.0f} examples/s")
    return numbers


def _left(progress: Progress) -> tuple[str, str]:
    """Return the time left for the stage and for the run; "" where unknown."""
    of_stage, of_run = (
        "" if seconds is None else f"{clock(seconds)} left" for seconds in progress.seconds_left()
    )
    return of_stage, of_run
