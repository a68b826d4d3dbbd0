"""Progress on stderr: one live display in a terminal, plain lines anywhere else."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from knife.plan import Plan
from knife.progress import Progress
from knife.track.follow import Follower
from knife.track.journal import Row
from knife.train.stage import Stage

LOOK_SECONDS = 0.25
LINE_SECONDS = 10.0


@contextmanager
def display(stages: list[Stage], plan: Plan, follower: Follower) -> Iterator[None]:
    """Show the stages as they are made, until the context ends."""
    progress = Progress(stages, plan)
    console = Console(stderr=True, highlight=False)
    scale = plan.config.scale
    place = f"{scale.workers} Ray worker{'s'[: scale.workers > 1]}"
    place = "this process" if scale.launcher == "process" else place
    console.print(f"{len(stages)} of {len(plan.stages)} stages to make, in {place}; starting …")
    show = _live if console.is_terminal else _lines
    with show(progress, follower, console):
        yield


@contextmanager
def _live(progress: Progress, follower: Follower, console: Console) -> Iterator[None]:
    spinner = Spinner("dots")

    def ticked(stage: Stage, number: int) -> None:
        place = f"[dim]{number}/{len(progress.stages)}[/dim]"
        console.print(f"[green]✓[/green] {place} {stage.label}: {progress.result(stage)}")

    live = Live(
        console=console,
        get_renderable=lambda: _render(progress, spinner),
        refresh_per_second=4,
        transient=True,
    )
    with live, _looking(progress, follower, console, ticked, lambda: None):
        yield


@contextmanager
def _lines(progress: Progress, follower: Follower, console: Console) -> Iterator[None]:
    """A line when a stage starts to move, one when it is done, one every 10 s in between."""
    moving, said = -1, 0.0
    last: Row | None = None

    def line(number: int, text: str) -> None:
        # No wrapping: whoever keeps these lines wants them whole.
        place = f"[{number}/{len(progress.stages)}]"
        console.print(f"{place} {text}", markup=False, soft_wrap=True)

    def done(stage: Stage, number: int) -> None:
        line(number, f"{stage.label}: done, {progress.result(stage)}")

    def under_way() -> None:
        nonlocal moving, said, last
        if progress.stage is None or progress.row is None or progress.row == last:
            return
        if progress.number > moving or time.monotonic() - said >= LINE_SECONDS:
            moving, said, last = progress.number, time.monotonic(), progress.row
            parts = [f"{progress.units}/{progress.total}", *_numbers(progress), _left(progress)]
            line(progress.number + 1, f"{progress.stage.label}: {', '.join(filter(None, parts))}")

    with _looking(progress, follower, console, done, under_way):
        yield


@contextmanager
def _looking(
    progress: Progress,
    follower: Follower,
    console: Console,
    done: Callable[[Stage, int], None],
    under_way: Callable[[], None],
) -> Iterator[None]:
    """A thread that looks several times a second, and once more at the end."""
    stop = threading.Event()

    def look(*, last: bool = False) -> None:
        number = progress.number
        for stage in progress.look(follower.newest(), last=last):
            number += 1
            done(stage, number)
        for note in follower.take_notes():
            console.print(f"note: {note}", markup=False, soft_wrap=True)
        under_way()

    def loop() -> None:
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


def _render(progress: Progress, spinner: Spinner) -> RenderableType:
    if progress.stage is None:
        return Text("writing the verdict …")
    head = Table.grid(padding=(0, 1))
    place = f"stage {progress.number + 1} of {len(progress.stages)}"
    share = progress.units / progress.total if progress.total else 0.0
    head.add_row(
        spinner,
        Text(place),
        Text(progress.stage.label, style="bold"),
        ProgressBar(total=1.0, completed=share, width=20),
        Text(f"{progress.units}/{progress.total}"),
    )
    body = Table.grid()
    body.add_row(head)
    words = [*_numbers(progress), _left(progress)] if progress.row else ["starting"]
    body.add_row(Text("  " + ", ".join(filter(None, words)), style="dim"))
    return body


def _numbers(progress: Progress) -> list[str]:
    """Loss, dev accuracy and rate, as far as they are known."""
    values = progress.row["metrics"] if progress.row else {}
    numbers = []
    if "loss" in values:
        numbers.append(f"loss {values['loss']:.3f}")
    if "dev_accuracy" in values:
        numbers.append(f"dev {100 * values['dev_accuracy']:.1f} %")
    if "examples_per_second" in values:
        numbers.append(f"{values['examples_per_second']:.0f} examples/s")
    return numbers


def _left(progress: Progress) -> str:
    """The time left, or nothing where that is unknown."""
    of_stage, of_run = progress.seconds_left()
    if of_stage is None:
        return ""
    words = f"{clock(of_stage)} left"
    return words if of_run is None else f"{words}, {clock(of_run)} of the run"


def clock(seconds: float) -> str:
    """A duration in words: 8 s, 3 min, 2 h 5 min."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
