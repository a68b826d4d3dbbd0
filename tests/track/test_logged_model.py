"""Students as models of MLflow's: they answer as `knife predict` does, and one is the champion."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from command_fixtures import Command, FinishedRun
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from recorded import run_tree
from trees import Shown, node

from knife.store.store import Store
from knife.track.logged_model import CHAMPION, signature
from knife.track.tracker import Tracker

QUESTION = {"question": "do frogs lay eggs ?", "choices": ["yes", "no"]}


@pytest.fixture(scope="module")
def logged(finished_run: FinishedRun) -> Path:
    """The folder of the logged model of a finished run's student."""
    client, _, run = _student(finished_run)
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    return Path(model.artifact_location.removeprefix("file://"))


@pytest.fixture(scope="module")
def loaded(logged: Path) -> Any:
    return mlflow.pyfunc.load_model(str(logged))


def _student(finished: FinishedRun) -> tuple[MlflowClient, Any, Any]:
    about = finished.result["mlflow"]
    parent, nested = run_tree(about["uri"], about["run_id"])
    return MlflowClient(about["uri"]), parent, nested["knife seed 0"]


def test_it_answers_as_predict_does(
    loaded: Any, finished_run: FinishedRun, command: Command, tmp_path: Path
) -> None:
    output = tmp_path / "choices.jsonl"
    student = finished_run.student("knife")
    done = command("predict", student, finished_run.test_file, "--output", output)
    assert done.status == 0, done.err
    expected = [json.loads(line) for line in output.read_text().splitlines()]
    lines = finished_run.test_file.read_text().splitlines()
    questions = [
        {name: value for name, value in json.loads(line).items() if name in ("id", *QUESTION)}
        for line in lines
    ]
    assert loaded.predict(pd.DataFrame(questions)).to_dict("records") == expected


def test_without_ids_it_gives_none(loaded: Any) -> None:
    (row,) = loaded.predict([QUESTION]).to_dict("records")
    assert row["choice"] == QUESTION["choices"][row["index"]]
    assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert "id" not in row


@pytest.mark.parametrize(
    ("question", "error"),
    [
        (QUESTION | {"choices": ["yes"]}, "row 2: choices: must be two or more"),
        (QUESTION | {"question": " "}, "row 2: question: is empty"),
        (QUESTION | {"question": "frog " * 300}, "trained for at most 256"),
        ({"question": "do frogs lay eggs ?"}, "choices"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(
    loaded: Any, question: dict[str, Any], error: str
) -> None:
    with pytest.raises(MlflowException, match=error) as refused:
        loaded.predict([QUESTION, question])
    assert refused.value.get_http_status_code() == 400


def test_it_has_weights_as_safetensors_and_no_pickle(logged: Path) -> None:
    files = {path.relative_to(logged).as_posix() for path in logged.rglob("*") if path.is_file()}
    assert {"scorer.py", "requirements.txt", "artifacts/student/model.safetensors"} <= files
    assert {Path(name).suffix for name in files} <= {".safetensors", ".json", ".yaml", ".py",
                                                     ".txt", ""}  # fmt: skip
    named = [line.partition("==")[0] for line in (logged / "requirements.txt").read_text().split()]
    assert named == ["mlflow", "torch", "transformers", "knife"]


def test_the_runs_results_are_the_models_and_stand_in_the_run_once(
    finished_run: FinishedRun,
) -> None:
    client, _, run = _student(finished_run)
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (model.source_run_id, model.model_type) == (run.info.run_id, "student")
    linked = {metric.key: metric.value for metric in model.metrics}
    assert set(linked) == {"dev_accuracy", "dev_loss", "test_accuracy", "test_loss", "test_ties"}
    for name, value in linked.items():
        (point,) = client.get_metric_history(run.info.run_id, name)
        assert point.value == value


def test_an_open_student_takes_no_choices_and_gives_text() -> None:
    known = signature(opened=True)
    assert known.inputs.input_names() == ["question", "id"]
    assert known.outputs.input_names() == ["id", "text", "rationale"]


def test_the_newest_registered_student_is_the_champion(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = Store(tmp_path)
    shutil.copytree(finished_run.student("knife"), store.root / "student" / "k")
    values = {"model": "student/k/model", "registered": "shipped", "status": "FINISHED"}
    versions = {"first": 1, "second": 2}
    # The first one is shown again when the second is there, as its run is when it starts again.
    for name in ("first", "second", "first"):
        with Tracker(None, store, "exp", {}) as tracker:
            summary = {"dev_accuracy": 0.5, "train_seconds": 3.0}
            Shown(tracker, store, node(name, summary=summary, **values))
            assert tracker.close() == []
        client = tracker.client
        tags = client.get_run(tracker.run_id).data.tags
        assert tags["knife.registered"] == f"shipped version {versions[name]}"
    assert len(client.search_model_versions("name = 'shipped'")) == 2
    version = client.get_model_version_by_alias("shipped", CHAMPION)
    assert (version.version, version.description) == (2, "second: dev accuracy 50.0 %")
    with monkeypatch.context():
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
        model = mlflow.pyfunc.load_model(f"models:/shipped@{CHAMPION}")
    assert model.metadata.run_id == version.run_id
    assert len(model.predict([QUESTION])) == 1
