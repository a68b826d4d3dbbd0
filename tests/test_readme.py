"""Every command of README.md works: each line of its ```sh blocks is run, in order.

Runs are made small by further overrides, and a server of facts stands in for one of a language
model; nothing else is changed. `make` targets are only dry-run.
The lines that need a cluster are run by tests/cluster/test_submit.py, on a real one.
"""

import csv
import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_fixtures import Command, free_port
from facts import facts_server
from readme_lines import README, blocks, needs_a_cluster

from knife.config.run import World, read
from knife.data.creatures import creatures
from knife.data.jsonl import write_examples
from knife.data.record import read_example

ROOT = Path(__file__).parents[1]
SMALL = [
    "scale.launcher=process",
    "data.world.train=40",
    "data.world.dev=20",
    "data.world.test=20",
    "teacher.epochs=1",
    "student.epochs=1",
    "seeds=[0]",
]


def test_every_command_of_the_readme(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mydata").mkdir()
    examples = creatures(World(train=40)).train
    write_examples(tmp_path / "mydata" / "train.jsonl", examples)
    with (tmp_path / "quiz.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["question", "choice1", "choice2", "answer"])
        table.writerows([e.question, *e.choices, e.choices[e.answer]] for e in examples)
    seen = []
    for language, text in blocks():
        if language == "yaml":
            name = yaml.safe_load(text)["name"]
            (tmp_path / f"{name}.yaml").write_text(text)
            if name == "mine":
                assert read(tmp_path / "mine.yaml").name == "mine"
        elif language == "json":
            example, errors = read_example(json.loads(text))
            assert example, errors
            (tmp_path / "questions.jsonl").write_text(text)
        elif language == "sh":
            for line in text.splitlines():
                words = shlex.split(line, comments=True)
                seen.append(" ".join(words[:2]))
                if not needs_a_cluster(words):
                    run_line(words, command, tmp_path)
    assert {
        "make demo",
        "make test",
        "knife run",
        "knife tune",
        "knife submit",
        "ray job",
        "knife predict",
        "knife push",
        "knife data",
        "knife report",
        "knife ui",
    } <= set(seen)


def run_line(words: list[str], command: Command, folder: Path) -> None:
    if words[0] == "make":
        done = subprocess.run(
            ["make", "-C", str(ROOT), "-n", *words[1:]], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return
    assert words[0] == "knife", f"a command that this test does not know: {words}"
    if words[1] == "ui":
        serve_for_a_moment(words[1:], folder)
        return
    if words[1:3] == ["data", "write"]:
        write_rationales(words, command, folder)
        return
    if words[1] == "run":
        words += SMALL
    if words[1] == "tune":
        words = [str(ROOT / word) if word.startswith("tune/") else word for word in words]
        words += [*SMALL, "budget.trials=1", "seeds.more=[]", "scheduler.grace=1"]
        words += ["final=null"]
    if words[1] in ("predict", "push"):
        students = (folder / "knife-store" / "student").iterdir()
        words = [
            word.replace("KEY", next(students).name) if "KEY" in word else word for word in words
        ]
    ended = command(*words[1:])
    assert ended.status == 0, ended.err
    if words[1] == "predict":
        (line,) = (folder / "choices.jsonl").read_text().splitlines()
        assert json.loads(line)["choice"] in ("yes", "no")


def write_rationales(words: list[str], command: Command, folder: Path) -> None:
    with facts_server() as facts:
        url = f"write.url={facts.url}"
        ended = command(*(url if word.startswith("write.url=") else word for word in words[1:]))
    assert ended.status == 0, ended.err
    found = (folder / "written" / "train.jsonl").read_text().splitlines()
    assert found
    assert all(json.loads(line)["rationale"] for line in found)


def serve_for_a_moment(words: list[str], folder: Path) -> None:
    port = str(free_port())
    with subprocess.Popen(
        [sys.executable, "-m", "knife", *words, "--port", port],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    ) as ui:
        assert ui.stderr
        assert f"http://127.0.0.1:{port}" in ui.stderr.readline()
        ui.send_signal(signal.SIGINT)
        assert ui.wait(timeout=300) == 130


def test_tables_of_commands_and_methods_are_whole(command: Command) -> None:
    for line in command("--help").out.splitlines():
        if found := re.match(r"│ (\w+)  ", line):
            assert f"`knife {found.group(1)}" in README
    for method in ("finetune", "knife", "teacher_init"):
        assert f"| `{method}` |" in README
