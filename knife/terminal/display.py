"""A run's progress on stderr: drawn in a terminal, plain lines anywhere else."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.spinner import Spinner
from rich.text import Text

from knife.core.background import background
from knife.core.words import counted
from knife.plan.events import Event, Failed, Made, Note, Started
from knife.plan.pace import Pace
from knife.plan.plan import Plan
from knife.plan.stage import Stage
from knife.store.store import Store
from knife.terminal.console import (
    LINE_SECONDS,
    bar,
    can_draw,
    clock,
    drawn,
    progress_console,
    say_line,
)
from knife.terminal.progress import result
from knife.terminal.run_progress import RunProgress, WorkProgress
from knife.train.follow import Follower
from knife.train.journal import Row

LOOK_SECONDS = 0.25


@contextmanager
def display(
    stages: list[Stage], plan: Plan, pace: Pace, links: Sequence[str] = ()
) -> Iterator[Callable[[Event], None]]:
    """Show the stages as they are made, until the context ends; yield what is to be told of each
    event.

    `links` are lines on where else to look; those added during the work are shown too.
    """
    console = progress_console()
    where = "in this process" if plan.config.scale.launcher == "process" else "on Ray"
    share = f"{len(stages)} of {counted(len(plan.stages), 'stage')}"
    say_line(console, f"{share} to make, {where}; starting …")
    with Follower(plan.config.store) as follower:
        progress = RunProgress(stages, plan, pace)
        shown = _Display(progress, pace, follower, links, console, Store(plan.config.store))
        with drawn(console, shown.drawing) if shown.draws else nullcontext(), shown.looking():
            yield shown


@contextmanager
def no_display(*_: object) -> Iterator[Callable[[Event], None]]:
    """Show nothing."""
    yield lambda _: None


class _Display:
    """What is shown of a run: the stages under way, results of finished ones, links and notes.

    In a terminal the stages under way are drawn below the rest. Elsewhere there is a line at the
    first progress of each, and every 10 s.
    """

    def __init__(
        self,
        progress: RunProgress,
        pace: Pace,
        follower: Follower,
        links: Sequence[str],
        console: Console,
        store: Store,
    ) -> None:
        self.progress, self.pace, self.follower = progress, pace, follower
        self.links, self.console, self.store = links, console, store
        self.draws = can_draw(console)
        self._spinner = Spinner("dots")
        self._links_said = 0
        # Events come in one thread, looks in another, and drawings in a third.
        self._lock = threading.RLock()
        # When a line on a stage was last printed, and its row.
        self._said: dict[str, tuple[float, Row]] = {}

    def __call__(self, event: Event) -> None:
        """Show an event."""
        with self._lock:
            self.progress.hear(event)
            done = self.progress.done
        # Printing waits for the drawing thread, which may be waiting for the lock.
        match event:
            case Started(work):
                for artifact in work.artifacts:
                    self.follower.follow(*artifact)
            case Made(work):
                self._say_done(done, f"{work.label}: ", result(work.stages, self.store))
            case Failed(work, error):
                self._say_done(done, f"{work.label}: ", f"failed, {error}", bad=True)
            case Note(text):
                say_line(self.console, f"note: {text}")

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
            self._look()

    def _look(self) -> None:
        """Update the progress, and print what is new."""
        with self._lock:
            self.progress.look(self.follower.newest())
            works = [] if self.draws else list(self.progress.under_way.values())
        for link in self.links[self._links_said :]:
            say_line(self.console, link)
            self._links_said += 1
        for note in self.follower.take_notes():
            say_line(self.console, f"note: {note}")
        for each in works:
            self._say_under_way(each)

    def _say_done(self, number: int, label: str, words: str, *, bad: bool = False) -> None:
        where = f"{number}/{self.progress.total}"
        if not self.draws:
            done = "" if bad else "done, "
            say_line(self.console, f"[{where}] {label}{done}{words}")
            return
        mark = ("✗", "red") if bad else ("✓", "green")
        self.console.print(Text.assemble(mark, " ", (where, "dim"), f" {label}{words}"))

    def _say_under_way(self, work: WorkProgress) -> None:
        """Print a line on a stage under way, from time to time."""
        if work.row is None:
            return
        now = time.monotonic()
        said = self._said.get(work.stage.key)
        if said and (now - said[0] < LINE_SECONDS or said[1] == work.row):
            return
        self._said[work.stage.key] = (now, work.row)
        parts = [f"{work.units}/{work.total}", *_numbers(work), self._left(work)]
        with self._lock:
            whole = self.progress.seconds_left()
        parts.append("" if whole is None else f"{clock(whole)} of the run")
        say_line(self.console, f"{work.work.label}: {', '.join(filter(None, parts))}")

    def drawing(self) -> list[Text]:
        """Return the stages under way: one in lines that fit 40 columns, several in a line each."""
        with self._lock:
            works = list(self.progress.under_way.values())
            done, total = self.progress.done, self.progress.total
            if done == total:
                return [Text("writing the verdict …")]
            turn = self._spinner.render(self.console.get_time())
            assert isinstance(turn, Text)
            head = Text.assemble(turn, f" {done} of {total} stages done")
            if not works:
                head.append("; workers start")
            whole = self.progress.seconds_left()
            if whole is not None:
                head.append(f", {clock(whole)} left")
            return [head, *(line for work in works for line in self._lines(work))]

    def _lines(self, work: WorkProgress) -> list[Text]:
        """Return two lines on a stage under way."""
        share = work.units / work.total if work.total else 0.0
        units = ", ".join(filter(None, [f" {work.units}/{work.total}", self._left(work)]))
        numbers = ", ".join(_numbers(work)) if work.row else "starting"
        return [
            Text.assemble("  ", (work.work.label, "bold"), f"  {numbers}"),
            Text.assemble("  ", bar(self.console, share), units),
        ]

    def _left(self, work: WorkProgress) -> str:
        """Return the time left for a stage; "" if unknown."""
        seconds = work.seconds_left(self.pace)
        return "" if seconds is None else f"{clock(seconds)} left"


def _numbers(work: WorkProgress) -> list[str]:
    """Return loss, dev accuracy and rate, as far as they are known."""
    values = work.row["metrics"] if work.row else {}
    numbers = []
    if "loss" in values:
        numbers.append(f"loss {values['loss']:.3f}")
    if "dev_accuracy" in values:
        numbers.append(f"dev {100 * values['dev_accuracy']:.1f} %")
    if "examples_per_second" in values:
        numbers.append(f"{values['examples_per_second']:.0f} examples/s")
    return numbers
