"""Progress, given rows of journals and artifacts one after the other, without a run."""

import io
import re
import shutil
import sys
import threading
from pathlib import Path

import pytest
from command_fixtures import FinishedRun
from rich.console import Console

from knife.config.run import read
from knife.plan.events import Made, Note, Started
from knife.plan.pace import Pace
from knife.plan.plan import Plan, plan_run
from knife.plan.schedule import Work
from knife.plan.stage import Stage, StudentStage
from knife.plan.steps import total_steps
from knife.store.store import Store
from knife.terminal.console import clock
from knife.terminal.display import _Display, display
from knife.terminal.progress import Progress, result
from knife.terminal.run_progress import RunProgress
from knife.train.follow import Follower
from knife.train.journal import Row


@pytest.fixture
def plan(finished_run: FinishedRun, tmp_path: Path) -> Plan:
    """Return the plan of the finished run, on a separate, empty store."""
    return plan_run(read(finished_run.config, [f"store={tmp_path / 'store'}"]))


def row(step: int, moment: float, **metrics: float) -> Row:
    return {"step": step, "time": moment, "metrics": metrics}


def finish(stage: Stage, finished_run: FinishedRun, plan: Plan) -> None:
    """Copy a stage's artifact from the finished run to the plan's store."""
    source = finished_run.store / stage.kind / stage.key
    shutil.copytree(source, Path(plan.config.store) / stage.kind / stage.key)


def test_stages_are_done_one_after_the_other(plan: Plan, finished_run: FinishedRun) -> None:
    progress = Progress(plan.stages, plan)
    assert progress.look({}) == []
    for number, stage in enumerate(plan.stages):
        assert (progress.number, progress.stage) == (number, stage)
        finish(stage, finished_run, plan)
        assert progress.look({}) == [stage]
    assert progress.stage is None
    assert progress.total == 0
    assert progress.seconds_left() == (0.0, 0.0)


def test_results_are_what_the_verdict_says(plan: Plan, finished_run: FinishedRun) -> None:
    for stage in plan.stages:
        finish(stage, finished_run, plan)
    store = Store(plan.config.store)
    said = {stage.label: result([stage], store) for stage in plan.stages}
    for method in finished_run.result["verdict"]["methods"]:
        share = f"{100 * method['accuracy']:.1f} %"
        assert said[f"test {method['method']} seed 0"] == f"test {share}"
    assert re.fullmatch(r"dev \d+\.\d % \(step \d of 4\)", said["teacher"])
    shards = (Path(plan.config.store) / "states").glob("*/*.safetensors")
    kilobytes = sum(path.stat().st_size for path in shards) / 1000
    assert 100 < kilobytes < 1000
    assert said["teacher states, layer 3"] == f"{kilobytes:.0f} kB"


def test_a_result_that_cannot_be_read_stops_nothing(plan: Plan, finished_run: FinishedRun) -> None:
    teacher = plan.stages[0]
    finish(teacher, finished_run, plan)
    (Path(plan.config.store) / "teacher" / teacher.key / "trained.json").unlink()
    assert result([teacher], Store(plan.config.store)) == "its result cannot be read at the moment"


def test_no_drawing_has_an_empty_line(plan: Plan) -> None:
    """An evaluation's last row has neither loss nor rate, and may be shown for a moment."""
    pace = Pace(plan.data)
    progress = RunProgress(plan.stages, plan, pace)
    store = Store(plan.config.store)
    with Follower(store.address) as follower:
        shown = _Display(progress, pace, follower, (), Console(width=40), store)
    teacher = Work(plan.stages[:1])
    progress.hear(Started(teacher, 0))
    (place,) = teacher.artifacts
    for metrics in ({}, {"loss": 0.5}, {"test_accuracy": 0.5}):
        progress.look({place: row(1, 10.0, **metrics)})
        lines = [line.plain for line in shown.drawing()]
        assert all(line.strip() for line in lines)
        assert ("  teacher  loss 0.500" in lines) == ("loss" in metrics)


def test_events_are_shown_while_the_drawing_waits_for_its_turn(plan: Plan) -> None:
    """The drawing thread has the console when it asks for the lock of the events."""
    pace, console, store = Pace(plan.data), Console(file=io.StringIO()), Store(plan.config.store)
    work, inside = Work(plan.stages[:1]), threading.Event()
    with Follower(store.address) as follower:
        shown = _Display(RunProgress(plan.stages, plan, pace), pace, follower, (), console, store)
        event = threading.Thread(target=shown, args=(Note("words"),), daemon=True)

        def draw() -> None:
            with console._lock:
                inside.set()
                event.start()
                shown.drawing()

        shown(Started(work, 0))
        drawing = threading.Thread(target=draw, daemon=True)
        drawing.start()
        assert inside.wait(60)
        for thread in (drawing, event):
            thread.join(60)
            assert not thread.is_alive()
    assert "note: words" in console.file.getvalue()  # type: ignore[attr-defined]


def test_units_and_time_left_of_a_training(plan: Plan) -> None:
    progress = Progress(plan.stages, plan)
    assert progress.stage
    place = (progress.stage.kind, progress.stage.key)
    assert progress.total == total_steps(plan.stages[0], plan.data[progress.stage.data]) == 4  # type: ignore[arg-type]
    progress.look({})
    assert progress.units == 0
    assert progress.seconds_left() == (None, None)
    progress.look({place: row(1, 100.0)})
    assert progress.units == 1
    progress.look({place: row(3, 110.0)})
    assert progress.units == 3
    # One step of 5 s is left, and two students of 4 steps, about as fast as the teacher.
    assert progress.seconds_left() == (5.0, 45.0)
    # The stage was killed and resumes from an earlier step: time is measured anew.
    progress.look({place: row(0, 200.0)})
    progress.look({place: row(2, 204.0)})
    assert progress.seconds_left()[0] == 4.0


def test_students_are_as_fast_as_the_students_before(plan: Plan, finished_run: FinishedRun) -> None:
    progress = Progress(plan.stages, plan)
    students = [stage for stage in plan.stages if isinstance(stage, StudentStage)]
    for stage in plan.stages[: plan.stages.index(students[1])]:
        finish(stage, finished_run, plan)
    progress.look({})
    assert progress.stage == students[1]
    of_stage, of_run = progress.seconds_left()
    trained = finished_run.store / "student" / students[0].key / "trained.json"
    seconds = float(re.findall(r'"seconds": ([\d.]+)', trained.read_text())[0])
    assert of_stage == pytest.approx(seconds)
    assert of_stage is not None
    assert of_run is not None
    assert of_run >= of_stage


def test_states_count_examples(plan: Plan, finished_run: FinishedRun) -> None:
    progress = Progress(plan.stages, plan)
    finish(plan.stages[0], finished_run, plan)
    progress.look({})
    assert progress.stage
    assert progress.stage.kind == "states"
    progress.look({("states", progress.stage.key): row(1, 1.0, examples=30)})
    assert (progress.units, progress.total) == (30, 40)


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["plain", "terminal"])
def test_every_stage_is_ticked_off_once(
    plan: Plan,
    finished_run: FinishedRun,
    monkeypatch: pytest.MonkeyPatch,
    stream: io.StringIO,
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with display(plan.stages, plan, Pace(plan.data)) as show:
        for stage in plan.stages:
            work = Work([stage])
            show(Started(work, 0))
            finish(stage, finished_run, plan)
            show(Made(work, 0))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert text.startswith("8 of 8 stages to make, in this process; starting …\n")
    for number, stage in enumerate(plan.stages, start=1):
        done = (
            f"✓ {number}/8 {stage.label}: "
            if stream.isatty()
            else f"[{number}/8] {stage.label}: done, "
        )
        assert text.count(done) == 1


def test_rows_become_lines(
    plan: Plan, finished_run: FinishedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """The finished run's journal, rewritten while the display reads it."""
    store = Path(plan.config.store)
    teacher = plan.stages[0]
    work = store / "work" / f"teacher-{teacher.key}"
    work.mkdir(parents=True)
    journal = finished_run.store / "teacher" / teacher.key / "journal.jsonl"
    (work / "journal.jsonl").write_text(journal.read_text())
    said = ""
    with display(plan.stages, plan, Pace(plan.data)) as show:
        show(Started(Work([teacher]), 0))
        while "teacher: " not in said:
            said += capsys.readouterr().err
    line = said.splitlines()[1]
    assert re.match(r"teacher: 4/4, loss \d+\.\d{3}, dev \d+\.\d %, \d+ examples/s", line), line


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (3540, "59 min"), (7500, "2 h 5 min")],
)
def test_clock(seconds: float, words: str) -> None:
    assert clock(seconds) == words
