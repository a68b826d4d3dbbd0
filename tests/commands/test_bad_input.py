"""User errors: one message with location and remedy, exit status 2, nothing written."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command_fixtures import Command, Ended, FinishedRun, write_config

from knife.models.source import EMBEDDED


@pytest.fixture
def refused(command: Command, tmp_path: Path) -> Command:
    """Run `knife run` on a small config with overrides that are refused without making anything."""
    config = write_config(tmp_path)

    def call(*overrides: str) -> Ended:
        ended = command("run", config, *overrides)
        assert ended.errors
        assert not (tmp_path / "store" / "runs").exists()
        return ended

    return call


def test_unknown_recipe(command: Command) -> None:
    (error,) = command("run", "creatures-ful").errors
    assert error.startswith("CONFIG: 'creatures-ful' is neither a recipe nor a file")
    assert "did you mean 'creatures-full'?" in error
    (error,) = command("run", "./folder/nothing.yaml").errors
    assert "nothing.yaml" in error


def test_config_that_is_no_yaml(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: x\ndata: [1, 2\nmodel: y\n")
    (error,) = command("run", path).errors
    assert error.startswith(f"{path}:3: not valid YAML")


def test_wrong_keys_types_and_values_all_at_once(refused: Command) -> None:
    ended = refused(
        "student.epoch=3",
        "data.fraction=many",
        "scale.precision=fp16",
        "scale.zero_stage=4",
        "methods=[finetune, knive]",
        "seeds=0",
    )
    errors = {error.split(":")[0]: error for error in ended.errors}
    assert "did you mean 'epochs'?" in errors["student.epoch"]
    assert 'got "many"' in errors["data.fraction"]
    assert "bf16" in errors["scale.precision"]
    assert "less than or equal to 3" in errors["scale.zero_stage"]
    assert (
        errors["methods"]
        == "methods: must be names of methods, but got 'knive' (did you mean 'knife'?)"
    )
    assert "valid list" in errors["seeds"]


def test_a_baseline_that_is_no_method_of_the_run(refused: Command) -> None:
    (error,) = refused("methods=[finetune, knife]", "compare.baseline=finetuen").errors
    assert error == ("compare.baseline: 'finetuen' is not in methods; did you mean 'finetune'?")


def test_variant_with_errors(refused: Command) -> None:
    ended = refused("methods=[knife, {name: a b, method: knive, datum: {}}]")
    errors = {error.split(":")[0]: error for error in ended.errors}
    assert errors.keys() == {"methods.1.name", "methods.1.method", "methods.1.datum"}
    assert "did you mean 'data'?" in errors["methods.1.datum"]
    ended = refused("methods=[{name: odd, method: knife, align: {input: {weigth: 1}}}, finetune]")
    assert ended.errors == [
        "methods.odd.align.input.weigth: unknown key; did you mean 'weight'?",
    ]


def test_override_without_a_value(refused: Command) -> None:
    ended = refused("epochs", "data.fraction=[")
    assert "must be KEY=VALUE" in ended.errors[0]
    assert ended.errors[1].startswith("data.fraction: ")


def test_keys_that_must_be_set(command: Command) -> None:
    assert command("run", "cose-minilm").errors == [
        "data.source: must be set",
        "model.teacher: must be set",
        "model.student: must be set",
    ]


def test_errors_of_scale_store_data_models_and_layers_all_at_once(
    command: Command, tmp_path: Path
) -> None:
    bare = tmp_path / "no-tokenizer"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(EMBEDDED["tiny-t5"] / name, bare)
    (tmp_path / "file").touch()
    ended = command(
        "run",
        write_config(tmp_path, scale={"launcher": "ray", "workers": 64}),
        "data.source=cretures",
        f"model.student={bare}",
        "model.teacher=/no/such/folder",
        f"store={tmp_path / 'file' / 'store'}",
    )
    errors = "\n".join(ended.errors)
    assert "scale.workers: 64 workers need a CPU each, but this machine has" in errors
    assert "set fewer" in errors
    assert "student.batch_size: must be at least scale.workers" in errors
    assert f"store: {tmp_path / 'file' / 'store'}" in errors
    assert "give another store" in errors
    assert "data.source: 'cretures'" in errors
    assert "did you mean 'creatures'?" in errors
    assert f"model.student: {bare} has a model but no tokenizer" in errors
    assert "save the tokenizer into the same folder" in errors
    assert "model.teacher: '/no/such/folder' is neither an existing folder nor a hub id" in errors


def test_layer_map_that_does_not_fit(refused: Command) -> None:
    ended = refused("align.input.layers=[[1, 9], [7, 1]]")
    assert ended.errors == [
        "align.input.layers: teacher layer 9 must be from 1 to 3",
        "align.input.layers: student layer 7 must be from 1 to 3",
    ]


def test_knife_without_rationales(refused: Command) -> None:
    (error,) = refused("data.rationale=none").errors
    assert "none of 40 training examples have a rationale" in error
    assert "leave knife out" in error
    assert "needs at least 10 %" in error
    (error,) = refused("data.rationale=dropped:0.95").errors
    assert "only 2 of 40 (5 %)" in error


def test_fraction_that_leaves_a_class_without_examples(refused: Command) -> None:
    (error,) = refused("data.fraction=0.02").errors
    assert error.startswith("data.fraction: ")
    assert "smallest fraction that works" in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_store_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    tmp_path.chmod(0o500)
    (error,) = command("run", config).errors
    assert error.startswith(f"store: {tmp_path / 'store'}")
    assert "not writable" in error
    tmp_path.chmod(0o700)


def test_broken_lines_of_a_source_with_file_and_line(command: Command, tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    good = {"id": "a", "question": "q ?", "choices": ["yes", "no"], "answer": "yes"}
    lines = [
        json.dumps(good),
        "{not json",
        json.dumps(good | {"id": "b", "choices": ["yes"]}),
        json.dumps(good | {"id": "c", "answer": "perhaps"}),
    ]
    (source / "train.jsonl").write_text("\n".join(lines))
    (source / "dev.jsonl").write_text("")
    for words in (
        ("run", write_config(tmp_path), f"data.source={source}"),
        ("data", "check", source),
    ):
        errors = command(*words).errors
        assert [error.split(": ")[0] for error in errors] == [
            f"{source}/train.jsonl:2",
            f"{source}/train.jsonl:3",
            f"{source}/train.jsonl:4",
            f"{source}/dev.jsonl",
        ]
    assert not (tmp_path / "store" / "runs").exists()


def test_hub_out_of_reach(
    refused: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    # Nothing listens on port 9, and the cache is empty.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    ended = refused("data.source=strategyqa", "model.student=google-t5/t5-small")
    source, model = ended.errors
    assert "data.source=/path/to/folder" in source
    assert "train.jsonl" in source
    assert "model.student=/path/to/folder" in model


def test_data_overrides_are_of_data_alone(command: Command) -> None:
    assert command("data", "check", "creatures", "student.epochs=3", "seeds=[1]").errors == [
        "student: only data.KEY=VALUE can be set here",
        "seeds: only data.KEY=VALUE can be set here",
    ]


def test_predict_tells_all_errors_and_writes_nothing(
    command: Command, finished_run: FinishedRun, tmp_path: Path
) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"id": 1, "question": "q ?", "choices": ["a"]}\nnope\n')
    output = tmp_path / "missing" / "out.jsonl"
    errors = command("predict", tmp_path, questions, "--output", output).errors
    assert [error.split(": ")[0] for error in errors] == [
        "STUDENT",
        f"{questions}:1",
        f"{questions}:2",
        "--output",
    ]
    teacher = next((finished_run.store / "teacher").iterdir())
    (error,) = command("predict", teacher, finished_run.test_file).errors
    assert "is a teacher, which reads rationales" in error


def test_unknown_command_and_missing_argument(command: Command) -> None:
    for words in (("rum",), ("run",), ("predict", "x")):
        ended = command(*words)
        assert ended.status == 2
        assert "Usage: knife" in ended.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (f"track.experiment={'x' * 600}", "track.experiment: must have at most 250 letters, but"),
        ("track.experiment=''", "track.experiment: must be the name of an experiment in MLflow"),
        ("track.experiment='  '", "track.experiment: must be the name of an experiment in MLflow"),
        ("track.experiment=..", "track.experiment: must be the name of an experiment in MLflow"),
        (
            'track.experiment="a\\nb"',
            r"track.experiment: must have no control characters, but got '\n'",
        ),
        (f"track.register={'x' * 600}", "track.register: string should have at most 250 char"),
        (f"name={'x' * 600}", "name: string should have at most 128 characters"),
    ],
)
def test_names_that_mlflow_or_a_disk_would_refuse(
    refused: Command, change: str, words: str
) -> None:
    (error,) = refused(change).errors
    assert error.startswith(words)
