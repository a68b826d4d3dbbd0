"""Answering by one process and by Ray workers: questions per second, with and without start-up.

python bench/predict.py [questions]
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from knife.config.run import World
from knife.data.creatures import creatures
from knife.data.jsonl import write_examples
from knife.inference.file import PART_ROWS, parts_folder

RUN = {
    "name": "bench",
    "data": {"source": "creatures", "world": {"train": 40, "dev": 20, "test": 20}},
    "model": {"teacher": "tiny-t5", "student": "tiny-t5"},
    "methods": ["finetune"],
    "seeds": [0],
    "student": {"epochs": 1, "batch_size": 20},
    "scale": {"launcher": "process"},
}


def knife(*words: object) -> subprocess.Popen[bytes]:
    """Run a `knife` command."""
    command = [sys.executable, "-m", "knife", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_student(folder: Path) -> Path:
    """Train a student that has learned almost nothing, which is as fast as any other."""
    config = folder / "bench.yaml"
    config.write_text(yaml.safe_dump(RUN | {"store": str(folder / "store")}))
    assert knife("run", config).wait() == 0
    return next((folder / "store" / "student").iterdir())


def timed(student: Path, file: Path, output: Path, words: Sequence[object]) -> tuple[float, float]:
    """Time `knife predict`: wall seconds, and questions per second from the first part on."""
    started = time.monotonic()
    process = knife("predict", student, file, "--output", output, *words)
    first, then = 0, started
    last, now = 0, started
    while process.poll() is None:
        count = len(list(parts_folder(output).glob("*/part-*")))
        if count > last:
            last, now = count, time.monotonic()
            if not first:
                first, then = count, now
        time.sleep(0.01)
    assert process.returncode == 0
    return time.monotonic() - started, (last - first) * PART_ROWS / (now - then)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    examples = creatures(World(train=1000, dev=10, test=10)).train
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        student, file = make_student(folder), folder / "questions.jsonl"
        copies = range(-(-count // len(examples)))
        write_examples(file, [replace(e, id=f"{n}-{e.id}") for n in copies for e in examples])
        rates, answers = {}, set()
        ways: dict[str, list[object]] = {"one process": []}
        ways |= {f"--workers {workers}": ["--workers", workers] for workers in (1, 2)}
        for way, words in ways.items():
            output = folder / "answers.jsonl"
            seconds, rates[way] = timed(student, file, output, words)
            answers.add(output.read_bytes())
            ratio = rates[way] / rates["one process"]
            print(
                f"{way:12} {seconds:6.1f} s in all, {rates[way]:6.0f} questions a second from the "
                f"first part on: {ratio:.2f} x"
            )
        print(f"the answers are {'the same' if len(answers) == 1 else 'NOT the same'}, to the byte")


if __name__ == "__main__":
    main()
