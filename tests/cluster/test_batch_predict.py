"""`knife predict --workers`: same answers as one process, even if workers are lost."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_fixtures import FinishedRun
from small_run import wait_for

import knife.inference.file as predict_module
from knife.config.run import World
from knife.core.errors import UserError
from knife.data.creatures import creatures
from knife.data.jsonl import write_examples
from knife.inference.answers import Answers, Tally
from knife.inference.file import parts_folder, predict, student_model
from knife.inference.parts import Part, split
from knife.inference.workers import _share, answer_parts, unseen
from knife.launch.session import session

QUESTIONS = creatures(World(train=300, dev=10, test=10)).train


@dataclass(frozen=True)
class Task:
    """A student and a file of questions in some parts.

    Attributes:
        student: the student's folder.
        file: 300 questions.
        output: where the answers go.
    """

    student: Path
    file: Path
    output: Path

    @property
    def part_files(self) -> list[Path]:
        """Return the finished parts."""
        return sorted(parts_folder(self.output).glob("*/part-*"))


@pytest.fixture
def task(finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """Return questions in 5 parts."""
    monkeypatch.setattr(predict_module, "PART_ROWS", 64)
    write_examples(tmp_path / "questions.jsonl", QUESTIONS)
    return Task(finished_run.student("knife"), tmp_path / "questions.jsonl", tmp_path / "out.jsonl")


def interrupt(task: Task, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Interrupt this process once it has answered some parts."""
    write = Answers.write
    done = 0

    def write_or_end(self: Answers, part: Part, rows: Sequence[dict[str, Any]], of: Tally) -> None:
        nonlocal done
        if done == after:
            raise KeyboardInterrupt
        write(self, part, rows, of)
        done += 1

    with monkeypatch.context() as changed:
        changed.setattr(Answers, "write", write_or_end)
        with pytest.raises(KeyboardInterrupt):
            predict(task.student, task.file, task.output)
    assert len(task.part_files) == after


def mark(path: Path) -> None:
    """Change the first choice of a part, so that it can be recognised."""
    head, first, *rest = path.read_text().splitlines()
    path.write_text(
        "\n".join([head, json.dumps(json.loads(first) | {"choice": "marked"}), *rest, ""])
    )


def test_workers_go_on_where_a_process_was_interrupted(
    task: Task, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = predict(task.student, task.file)
    assert [row["id"] for row in alone.rows] == [question.id for question in QUESTIONS]
    interrupt(task, monkeypatch, after=2)
    assert not task.output.exists()
    mark(task.part_files[1])
    with session(0):
        with monkeypatch.context() as changed:
            changed.setenv("RAY_ADDRESS", "of-the-session")
            with pytest.raises(UserError, match=r"^--workers: 1000 workers .* but the cluster has"):
                predict(task.student, task.file, task.output, 1000)
        found = predict(task.student, task.file, task.output, 2)
    err = capfd.readouterr().err.splitlines()
    assert "128 of 300 questions are already answered; resuming …" in err
    assert "172 questions for 2 Ray workers; starting …" in err
    # Existing parts were used unchanged, and the workers added the same answers.
    changed_rows = [n for n, row in enumerate(found.rows) if row != alone.rows[n]]
    assert changed_rows == [64]
    assert found.rows[64]["choice"] == "marked"
    assert found.tally == alone.tally
    left = sorted(path.name for path in task.output.parent.iterdir())
    assert left == ["out.jsonl", "questions.jsonl"]


def test_parts_of_other_questions_or_of_another_student_are_not_taken(
    task: Task, finished_run: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(task, monkeypatch, after=2)
    for path in task.part_files:
        mark(path)
    other = replace(task, student=finished_run.student("finetune"))
    found = predict(other.student, other.file, other.output)
    assert found.rows == predict(other.student, other.file).rows
    interrupt(task, monkeypatch, after=2)
    mark(task.part_files[0])
    write_examples(task.file, [*QUESTIONS[:-1], replace(QUESTIONS[-1], id="changed")])
    found = predict(task.student, task.file, task.output)
    assert found.rows == predict(task.student, task.file).rows
    assert found.rows[-1]["id"] == "changed"


def test_what_a_host_does_not_see(task: Task, tmp_path: Path) -> None:
    model, size = student_model(task.student), task.file.stat().st_size
    assert unseen(model, task.file, size, tmp_path) == []
    names = [name for name, _ in unseen(tmp_path, task.file, size + 1, tmp_path / "gone", 0)]
    assert names == ["STUDENT", "FILE", "--output"]


def test_gpus_are_shared_evenly() -> None:
    assert _share(0, 4) == 0
    assert _share(8, 4) == 1
    assert _share(4, 4) == 1
    assert _share(1, 4) == 0.25
    # Two of the three GPUs get two workers each, the third one gets one.
    assert _share(3, 5) == 0.5


@dataclass
class Driver:
    """`knife predict` as a separate command on 12,000 questions, 12 parts."""

    task: Task
    environment: dict[str, str]
    process: psutil.Popen | None = None

    def start(self, *words: str) -> None:
        """Start the command."""
        command = [sys.executable, "-m", "knife", "predict", self.task.student, self.task.file]
        command += ["--output", self.task.output, *words]
        with self.log.open("w") as log:
            self.process = psutil.Popen(
                list(map(str, command)), env=self.environment, stdout=log, stderr=log
            )

    @property
    def log(self) -> Path:
        return self.task.output.with_suffix(".log")

    def wait_for_parts(self, number: int) -> None:
        """Wait until at least this many parts exist, but not all."""

        def there() -> bool:
            assert self.process
            assert self.process.poll() is None, self.log.read_text()
            return len(self.task.part_files) >= number

        wait_for(there, 600)
        assert len(self.task.part_files) < 12

    def ends(self) -> str:
        """Wait until it succeeds, and return what it printed."""
        assert self.process
        status = self.process.wait(600)
        assert status == 0, self.log.read_text()
        return self.log.read_text()


def workers_below(process: psutil.Process) -> list[psutil.Process]:
    """Return Ray Data's workers below a process."""
    return [p for p in process.children(recursive=True) if "MapWorker" in " ".join(p.cmdline())]


@pytest.fixture(scope="module")
def many(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Return 12,000 questions, and the answers of one process."""
    folder = tmp_path_factory.mktemp("many")
    examples = [replace(e, id=f"{n}-{e.id}") for n in range(40) for e in QUESTIONS]
    write_examples(folder / "questions.jsonl", examples)
    task = Task(finished_run.student("knife"), folder / "questions.jsonl", folder / "alone.jsonl")
    predict(task.student, task.file, task.output, keep_rows=False)
    return task


@pytest.fixture
def driver(many: Task, tmp_path: Path) -> Iterator[Driver]:
    """Yield a command whose processes are all killed at the end of the test."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    driver = Driver(replace(many, output=tmp_path / "out.jsonl"), environment)
    yield driver
    if driver.process and driver.process.poll() is None:
        driver.process.send_signal(signal.SIGTERM)
        driver.process.wait(300)


@pytest.mark.faults
def test_a_error_that_a_worker_finds_is_the_users(task: Task) -> None:
    parts = split(task.file, 150)
    parts[1] = replace(parts[1], digest="0" * 16)
    answers = Answers(task.output.parent)
    with pytest.raises(UserError, match=r"^[^\n]*questions.jsonl: has changed since it was check"):
        answer_parts(student_model(task.student), task.file, answers, parts, 2, lambda _: None)


@pytest.mark.faults
def test_a_part_that_ends_every_worker_ends_the_work(driver: Driver) -> None:
    driver.start("--workers", "1")
    assert driver.process
    folder = parts_folder(driver.task.output)

    def begun(times: int) -> bool:
        tries = folder.glob("*/.tries-part-000000000000-*")
        return any(path.stat().st_size == times for path in tries)

    for times in range(1, 5):
        wait_for(partial(begun, times))
        (worker,) = workers_below(driver.process)
        worker.kill()
        worker.wait()
    assert driver.process.wait(600) == 1
    assert "4 workers in a row were lost while answering the 1024 questions from line 1 of" in (
        driver.log.read_text()
    )


@pytest.mark.faults
def test_a_killed_worker_is_replaced(many: Task, driver: Driver) -> None:
    driver.start("--workers", "2")
    driver.wait_for_parts(3)
    assert driver.process
    first, _ = workers_below(driver.process)
    first.kill()
    out = driver.ends()
    assert driver.task.output.read_bytes() == many.output.read_bytes()
    # On a busy machine, checking the questions takes long enough to show progress.
    lines = [line for line in out.splitlines() if not line.startswith("checking: ")]
    # Ray's message about the lost worker is between these.
    assert lines[0] == "12,000 questions for 2 Ray workers; starting …"
    assert lines[-1].startswith("accuracy ")


@pytest.mark.faults
@pytest.mark.parametrize("words", [[], ["--workers", "2"]], ids=["process", "workers"])
def test_a_killed_driver_goes_on(many: Task, driver: Driver, words: list[str]) -> None:
    driver.start(*words)
    driver.wait_for_parts(4)
    assert driver.process
    below = driver.process.children(recursive=True)
    driver.process.kill()
    driver.process.wait()
    psutil.wait_procs(below, 60)
    assert not driver.task.output.exists()
    there = len(driver.task.part_files)
    driver.start(*words)
    out = driver.ends()
    assert f"{1024 * there:,} of 12,000 questions are already answered; resuming …" in out
    assert driver.task.output.read_bytes() == many.output.read_bytes()
    assert not parts_folder(driver.task.output).exists()


@pytest.mark.faults
def test_ctrl_c_keeps_what_is_finished(many: Task, driver: Driver) -> None:
    driver.start("--workers", "2")
    driver.wait_for_parts(3)
    assert driver.process
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.wait(300) == 130, driver.log.read_text()
    assert "nothing is lost: run the same command again to resume" in driver.log.read_text()
    driver.start("--workers", "2")
    assert "are already answered" in driver.ends()
    assert driver.task.output.read_bytes() == many.output.read_bytes()
