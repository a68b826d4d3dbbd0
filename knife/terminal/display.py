"""A run's progress on stderr: drawn in a terminal, plain lines anywhere else."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.spinner import Spinner
from rich.text import Text

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
    progress = Progress(stages, plan)
    console = progress_console()
    scale = plan.config.scale
    place = counted(scale.workers, "Ray worker")
    place = "this process" if scale.launcher == "process" else place
    share = f"{len(stages)} of {counted(len(plan.stages), 'stage')}"
    say_line(console, f"{share} to make, in {place}; starting …")
    show = _live if can_draw(console) else _lines
    with show(progress, _News(follower, links), console):
        yield


@contextmanager
def no_display(*_: object) -> Iterator[None]:
    """Show nothing."""
    yield


class _News:
    """What is shown besides the stages' rows."""

    def __init__(self, follower: Follower, links: Sequence[str]) -> None:
        self.follower, self._links, self._said = follower, links, 0

    def lines(self) -> list[str]:
        """Return what is new since the last call: links and notes of stages."""
        fresh = list(self._links[self._said :])
        self._said += len(fresh)
        return fresh + [f"note: {note}" for note in self.follower.take_notes()]


@contextmanager
def _live(progress: Progress, news: _News, console: Console) -> Iterator[None]:
    spinner = Spinner("dots")

    def ticked(stage: Stage, number: int) -> None:
        place = f"[dim]{number}/{len(progress.stages)}[/dim]"
        console.print(f"[green]✓[/green] {place} {stage.label}: {progress.result(stage)}")

    def drawing() -> list[Text]:
        # Another thread updates the progress.
        with progress.lock:
            return _drawing(progress, spinner, console)

    with (
        drawn(console, drawing),
        _looking(progress, news, console, ticked, lambda: None),
    ):
        yield


@contextmanager
def _lines(progress: Progress, news: _News, console: Console) -> Iterator[None]:
    """Print a line at a stage's first progress, one when it is done, one every 10 s in between."""
    moving, said = -1, 0.0
    last: Row | None = None

    def line(number: int, text: str) -> None:
        say_line(console, f"[{number}/{len(progress.stages)}] {text}")

    def done(stage: Stage, number: int) -> None:
        line(number, f"{stage.label}: done, {progress.result(stage)}")

    def under_way() -> None:
        nonlocal moving, said, last
        if progress.stage is None or progress.row is None or progress.row == last:
            return
        if progress.number > moving or time.monotonic() - said >= LINE_SECONDS:
            moving, said, last = progress.number, time.monotonic(), progress.row
            of_stage, of_run = _left(progress)
            of_run = of_run.replace("left", "of the run")
            parts = [f"{progress.units}/{progress.total}", *_numbers(progress), of_stage, of_run]
            line(progress.number + 1, f"{progress.stage.label}: {', '.join(filter(None, parts))}")

    with _looking(progress, news, console, done, under_way):
        yield


@contextmanager
def _looking(
    progress: Progress,
    news: _News,
    console: Console,
    done: Callable[[Stage, int], None],
    under_way: Callable[[], None],
) -> Iterator[None]:
    """Poll progress and news from a thread several times a second, and once more at the end."""
    stop = threading.Event()

    def look(*, last: bool = False) -> None:
        number = progress.number
        for stage in progress.look(news.follower.newest(), last=last):
            number += 1
            done(stage, number)
        for line in news.lines():
            say_line(console, line)
        under_way()

    def loop() -> None:
        look()
        while not stop.wait(LOOK_SECONDS):
            look()

    thread = threading.Thread(target=loop, name="knife-display", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look(last=True)


def _drawing(progress: Progress, spinner: Spinner, console: Console) -> list[Text]:
    """Draw the stage under way in lines that fit 40 columns."""
    if progress.stage is None:
        return [Text("writing the verdict …")]
    turn = spinner.render(console.get_time())
    assert isinstance(turn, Text)
    place = f" stage {progress.number + 1} of {len(progress.stages)}: "
    of_stage, of_run = _left(progress)
    share = progress.units / progress.total if progress.total else 0.0
    units = ", ".join(filter(None, [f" {progress.units}/{progress.total}", of_stage]))
    lines = [
        Text.assemble(turn, place, (progress.stage.label, "bold")),
        Text.assemble("  ", bar(console, share), units),
    ]
    # The last row of an evaluation has only its result, which is shown when the stage is done.
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
