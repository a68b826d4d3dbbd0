"""`from knife import run, sweep, predict`: the examples of docs/python.md, and what is refused."""

import asyncio
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_fixtures import Command, FinishedRun
from documented import example

from knife import UserError, predict, run, sweep
from knife.data.jsonl import read_examples
from knife.inference.file import predict as predict_file


def test_examples_of_the_page_in_a_notebook(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook's kernel: an event loop is running, and stdout is not a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(finished_run.config.read_text())
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    names: dict[str, Any] = {}

    async def cells() -> None:
        for section in ("run", "predict", "Errors"):
            exec(example(section), names)

    asyncio.run(cells())
    lines = out.getvalue().splitlines()
    verdict = finished_run.result["verdict"]["methods"]
    assert lines[:2] == [f"{m['method']} {m['accuracy']} {m['low']} {m['high']}" for m in verdict]
    assert lines[2:4] == [
        f"{s['method']} {s['seed']} {s['folder']}" for s in finished_run.result["students"]
    ]
    choice, probabilities = lines[4].split(" ", 1)
    assert choice in ("yes", "no")
    assert sum(json.loads(probabilities)) == pytest.approx(1, abs=1e-5)
    assert lines[5:] == ["student.epoch: unknown key; did you mean 'epochs'?"]
    assert names["result"].made == []


def test_the_command_says_the_same(command: Command, finished_run: FinishedRun) -> None:
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")}
    result = run(finished_run.config)
    # The settings of the notebook's own MLflow are unchanged.
    after = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")}
    assert after == before
    ended = command("run", finished_run.config, "--json")
    assert json.loads(ended.out) == result.to_dict()


def test_a_config_may_be_a_mapping(finished_run: FinishedRun, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        run({"name": "mine", "data": {"source": tmp_path / "none"}}, **{"student.epochs": 0})
    assert error.value.errors == [
        "model: must be set",
        "student.epochs: input should be greater than or equal to 1, but got 0",
    ]
    (config,) = (finished_run.store / "runs").glob("*/config.json")
    values = json.loads(config.read_text())
    result = run(values, store=finished_run.store)
    assert result.made == []
    (start,) = json.loads((result.folder / "run.json").read_text())["starts"]
    assert start["command"].startswith("knife run ")
    store = shutil.copytree(finished_run.store, tmp_path / "store")
    result = run(values | {"name": "other"}, store=store)
    assert result.made == []
    (start,) = json.loads((result.folder / "run.json").read_text())["starts"]
    assert start["command"].startswith("python ")


def test_examples_in_memory_are_those_of_a_file(finished_run: FinishedRun) -> None:
    student = finished_run.student("knife")
    examples = [
        {"id": e.id, "question": e.question, "choices": e.choices, "answer": e.answer}
        for e in read_examples(finished_run.test_file)
    ]
    assert predict(str(student), iter(examples)) == predict_file(student, finished_run.test_file)


def test_errors_of_examples_in_memory(finished_run: FinishedRun) -> None:
    good = {"id": "a", "question": "forest ?", "choices": ["yes", "no"]}
    with pytest.raises(UserError) as error:
        predict(finished_run.student("knife"), [good, good, {"id": "b"}, "c"])  # type: ignore[list-item]
    assert [message.split(": ")[0] for message in error.value.errors] == [
        "examples:2",
        "examples:3",
        "examples:4",
    ]
    with pytest.raises(UserError, match="examples: has no examples"):
        predict(finished_run.student("knife"), [])
    with pytest.raises(UserError, match="is not the folder of a student"):
        predict(finished_run.store, [good])


def test_values_of_a_program(finished_run: FinishedRun) -> None:
    epochs = np.array([2, 3]).min()
    assert run(finished_run.config, seeds=range(1), student={"epochs": epochs}).made == []
    student = finished_run.student("knife")
    plain = {"id": "a", "question": "forest ?", "choices": ["yes", "no"], "answer": 1}
    columns = plain | {"choices": np.array(["yes", "no"]), "answer": np.int64(1)}
    assert predict(student, [columns]) == predict(student, [plain])


@pytest.mark.parametrize(
    ("function", "given", "message"),
    [
        (run, [7], "config: must be a path or a name, but got int"),
        (sweep, [None], "path: must be a path or a name, but got NoneType"),
        (sweep, ["no/such.yaml"], "SWEEP: the file no/such.yaml does not exist"),
        (predict, [[], []], "student: must be a path or a name, but got list"),
        (predict, ["s3://kebik", []], "STUDENT: s3://kebik is not the url of a student"),
        (predict, ["none", {"id": "a"}], "examples: must be a path or a list of mappings, but"),
        (predict, ["none", None], "examples: must be a path or a list of mappings, but got None"),
        (predict, ["none", [{"id": object()}]], "examples:1: object is neither text, number,"),
    ],
)
def test_arguments_that_are_at_error(
    function: Callable[..., object], given: list[Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        function(*given)
    (said,) = error.value.errors
    assert said.startswith(message)


def test_values_that_no_file_can_hold() -> None:
    with pytest.raises(UserError) as error:
        run("demo", seeds=object(), student={1j: 2})
    assert [message.split(": ")[0] for message in error.value.errors] == ["seeds", "student"]
