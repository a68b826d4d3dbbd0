"""Rationales are written whatever dies: nothing is lost, and little is asked for twice."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from facts import Facts, facts_server, questions
from small_run import wait_for

from knife.data.jsonl import read_examples

pytestmark = pytest.mark.faults

KILLS = 20
IN_FLIGHT = 8


class Writing:
    """`knife data write` in a process of its own.

    Attributes:
        out: its folder.
    """

    def __init__(self, source: Path, facts: Facts, *words: str) -> None:
        self.out = source.with_name("out")
        self.log = source.with_name("log.txt")
        self._words = [sys.executable, "-m", "knife", "data", "write", str(source)]
        self._words += ["--out", str(self.out), *facts.words, *words]

    def start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(self._words, stdout=log, stderr=log)

    def answered(self) -> int:
        """Return how many whole lines of answers are kept."""
        files = self.out.glob("written/answers/*.jsonl")
        return sum(path.read_bytes().count(b"\n") for path in files)

    def explained(self) -> list[bool]:
        return [bool(each.rationale) for each in read_examples(self.out / "train.jsonl")]


def test_killed_at_any_moment_it_asks_again_for_what_was_under_way_alone(tmp_path: Path) -> None:
    draw = random.Random(0)
    with facts_server("--latency", "0.05") as facts:
        source = questions(tmp_path / "questions", 2000)
        writing = Writing(source, facts, f"write.in_flight={IN_FLIGHT}")
        for number in range(KILLS):
            # Somewhere in its share of the work, and now and then while it only starts.
            until = number * 2000 // KILLS + draw.randrange(-5, 80)
            process = writing.start()
            wait_for(lambda: process.poll() is not None or writing.answered() >= until)  # noqa: B023
            process.kill()
            process.wait()
        assert writing.start().wait(300) == 0
        counts = facts.counts()
    assert writing.explained() == [True] * 2000
    # The server counts what it has sent, kept or not.
    assert counts["again"] <= KILLS * IN_FLIGHT
    lines = [
        json.loads(line)
        for path in writing.out.glob("written/answers/*.jsonl")
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]
    assert len({line["key"] for line in lines}) == len(lines) == 2000


@pytest.mark.parametrize(("workers", "count"), [(None, 200), (2, 100)])
def test_a_busy_and_broken_server_loses_nothing(
    tmp_path: Path, workers: int | None, count: int
) -> None:
    """429 on every third request, 500 on every tenth, 5 % end early, and 5 % are no JSON."""
    trouble = ["--busy", "3", "--broken", "10", "--cut", "0.05", "--garbled", "0.05"]
    with facts_server(*trouble) as facts:
        writing = Writing(
            questions(tmp_path / "questions", count), facts, f"write.workers={workers or 'null'}"
        )
        assert writing.start().wait(500) == 0
    assert writing.explained() == [True] * count
    log = writing.log.read_text()
    for reason in ("status 429", "status 500", "cut on its way", "no chat completion"):
        assert f"({reason}" in log or f"{reason})" in log


def test_a_lost_worker_is_replaced(tmp_path: Path) -> None:
    with facts_server("--latency", "0.1") as facts:
        words = ["write.workers=2", f"write.in_flight={IN_FLIGHT}"]
        writing = Writing(questions(tmp_path / "questions", 1500), facts, *words)
        process = writing.start()
        # The first answer is asked for by the driver.
        wait_for(lambda: process.poll() is not None or writing.answered() > 300)
        workers = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if "MapWorker" in " ".join(child.cmdline())
        ]
        assert len(workers) == 2
        workers[0].kill()
        assert process.wait(400) == 0
        counts = facts.counts()
    assert writing.explained() == [True] * 1500
    assert counts["again"] <= IN_FLIGHT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_keeps_what_it_has(tmp_path: Path, number: signal.Signals) -> None:
    with facts_server("--latency", "0.05") as facts:
        writing = Writing(questions(tmp_path / "questions", 1000), facts, "write.in_flight=4")
        process = writing.start()
        wait_for(lambda: process.poll() is not None or writing.answered() > 50)
        os.kill(process.pid, number)
        assert process.wait(60) == 128 + number
        lines = writing.log.read_text().splitlines()
        assert lines[-1] == "nothing is lost: run the same command again to resume"
        assert "Traceback" not in "\n".join(lines)
        kept = writing.answered()
        assert kept > 50
        assert writing.start().wait(300) == 0
        assert facts.counts()["again"] <= 4
    assert f"{kept} of 1,000 requests are already answered" in writing.log.read_text()
