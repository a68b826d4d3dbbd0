"""`knife run` as a command: its output and exit status."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_fixtures import Command, FinishedRun, write_config


def snapshot(folder: Path) -> dict[str, int]:
    """Return every file and folder with its modification time."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_json_is_the_only_thing_on_stdout(finished_run: FinishedRun) -> None:
    result = finished_run.result
    assert [(s["method"], s["seed"]) for s in result["students"]] == [("finetune", 0), ("knife", 0)]
    assert all((Path(s["folder"]) / "model" / "config.json").is_file() for s in result["students"])
    assert [m["method"] for m in result["verdict"]["methods"]] == ["finetune", "knife"]
    assert result["verdict"]["ceiling"].keys() == {"with_rationale", "without_rationale"}
    assert result["mlflow"]["run_id"]
    assert len(result["made"]) == 8


def test_progress_in_plain_lines_and_no_noise_of_libraries(finished_run: FinishedRun) -> None:
    lines = finished_run.stderr.splitlines()
    assert lines[0] == "8 of 8 stages to make, in this process; starting …"
    ends = [i for i, line in enumerate(lines) if re.match(r"\[8/8\] .*: done, test", line)]
    assert ends, finished_run.stderr
    assert lines[1] == f"MLflow: knife ui --store {finished_run.store}"
    assert lines[-1] == lines[1]
    for line in lines[2 : ends[0] + 1]:
        # On a slow machine there are lines on stages under way as well.
        assert re.match(r"\[\d/8\] [\w, ]+: done, |[\w, ]+: \d+/\d+(, |$)", line), line
    done = [line for line in lines if ": done, " in line]
    assert [line[:5] for line in done] == [f"[{n}/8]" for n in range(1, 9)]
    assert re.fullmatch(r"\[1/8\] teacher: done, dev \d+\.\d % \(step \d+ of 4\)", done[0])
    assert lines[ends[0] + 1].startswith("verdict, config and report: ")


def test_a_second_run_makes_nothing_again(command: Command, finished_run: FinishedRun) -> None:
    models = [path for kind in ("teacher", "states", "student", "evaluate", "data")
              for path in (finished_run.store / kind).iterdir()]  # fmt: skip
    before = [snapshot(path) for path in models]
    ended = command("run", finished_run.config)
    assert ended.status == 0
    assert "everything was in the store" in ended.err
    assert "to make" not in ended.err
    for method in finished_run.result["verdict"]["methods"]:
        assert f"{100 * method['accuracy']:.1f}" in ended.out
    assert "teacher, with" in ended.out
    assert [snapshot(path) for path in models] == before


def test_dry_run_of_a_finished_run_says_so_and_writes_nothing(
    command: Command, finished_run: FinishedRun
) -> None:
    before = snapshot(finished_run.store)
    ended = command("run", finished_run.config, "--dry-run", "--json")
    assert ended.status == 0
    assert ended.err == ""
    found = json.loads(ended.out)
    assert {stage["state"] for stage in found["stages"]} == {"in the store"}
    assert found["splits"] == [{"train": 40, "train with a rationale": 40, "dev": 20, "test": 20}]
    assert snapshot(finished_run.store) == before


def test_dry_run_of_another_seed_makes_its_student_alone(
    command: Command, finished_run: FinishedRun
) -> None:
    before = snapshot(finished_run.store)
    ended = command("run", finished_run.config, "--dry-run", "--json", "seeds=[0, 1]")
    stages = json.loads(ended.out)["stages"]
    make = [stage["label"] for stage in stages if stage["state"] == "to make"]
    assert make == ["finetune seed 1", "test finetune seed 1", "knife seed 1", "test knife seed 1"]
    assert snapshot(finished_run.store) == before


def made(store: Path) -> set[str]:
    """Return the kinds of artifacts that a store has."""
    return {path.name for path in store.iterdir()} - {"locks", "work"}


def test_a_dry_run_keeps_only_the_data(command: Command, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    ended = command("run", config, "--dry-run", "student.epochs=3")
    assert ended.status == 0
    assert "8 of 8 stages to make, 16 training steps in all" in ended.out
    assert "nothing was made yet" in ended.out
    assert made(tmp_path / "store") == {"data", "sources", "tokens"}
    # The layers of a teacher's states are one line.
    every = ["align.input.layers=all", "align.output.weight=1"]
    ended = command("run", config, "--dry-run", *every)
    assert "11 of 11 stages to make" in ended.out
    assert re.search(r"^ *teacher states, 4 parts +to make", ended.out, re.MULTILINE)
    ended = command("run", "demo", "--dry-run", f"store={tmp_path / 'store'}")
    assert "teacher: tiny-t5" in ended.out
    assert made(tmp_path / "store") == {"data", "sources", "tokens"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["student.learning_rate=1e30"], "the (loss|gradient) is not finite at step 2; "),
        (
            ["student.learning_rate=1e12", "student.batch_size=40", "student.epochs=1"],
            "after step 1, on dev, the outputs are not finite for 20 of 20 examples: ",
        ),
        (
            ["student.learning_rate=1e8", "scale.precision=bf16"],
            r"the (loss|gradient) is not finite at",
        ),
    ],
)
def test_a_training_that_diverges_ends_with_1_and_leaves_nothing(
    command: Command, tmp_path: Path, changes: list[str], said: str
) -> None:
    config = write_config(tmp_path, methods=["finetune"])
    ended = command("run", config, *changes)
    assert ended.status == 1
    assert ended.out == ""
    line = ended.err.splitlines()[-1]
    assert re.match("error: finetune seed 0: " + said, line), ended.err
    assert "last good checkpoint: none yet. Lower the learning rate" in line
    assert "Traceback" not in ended.err
    store = tmp_path / "store"
    assert not list(store.glob("student/*"))
    assert not list(store.rglob("verdict.json"))
    assert not list(store.rglob("README.md"))


def test_commands_in_the_last_words_are_for_a_shell(
    command: Command, finished_run: FinishedRun, tmp_path: Path
) -> None:
    store = shutil.copytree(finished_run.store, tmp_path / "my store")
    ended = command("run", finished_run.config, f"store={store}")
    assert ended.status == 0, ended.err
    assert f"a student's answers: knife predict '{store}/student/" in ended.err
    assert f"MLflow: knife ui --store '{store}'\n" in ended.err


def test_interrupted_and_terminated_runs_say_how_to_go_on(tmp_path: Path) -> None:
    config = write_config(
        tmp_path, methods=["knife"], student={"epochs": 100_000, "batch_size": 20}
    )
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = subprocess.Popen(
            [sys.executable, "-m", "knife", "run", config],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr
        for line in process.stderr:
            if "knife seed 0: " in line:
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
        assert process.returncode == status, err
        assert out == ""
        assert err.splitlines()[-1] == "nothing is lost: run the same command again to resume"
        assert "Traceback" not in err
    # Finished work is kept: the second start began with the student.
    assert any((tmp_path / "store" / "teacher").iterdir())
    assert not (tmp_path / "store" / "student").exists()
