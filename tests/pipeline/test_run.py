"""Whole runs in this process: what is made, what is reused, and what MLflow records."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from recorded import Point, journal_points, points, run_tree, timeless
from safetensors.torch import load_file
from small_run import small_config
from torch import Tensor

from knife.config.run import RunConfig
from knife.core.errors import WorkFailedError
from knife.pipeline.run import Result, run
from knife.plan.stage import Stage
from knife.report.table import sentence
from knife.store.store import Store
from knife.terminal.display import no_display


def config(store: Path, **changes: Any) -> RunConfig:
    return small_config(store, **({"methods": ["finetune", "knife"]} | changes))


@pytest.fixture(autouse=True)
def no_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Make a run on a new store. Tests may add to the store, and must repair what they break."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return run(
            config(tmp_path_factory.mktemp("store"), track={"register": "small"}), no_display
        )


def store_of(result: Result) -> Store:
    return Store(result.plan.config.store)


def labels(result: Result) -> list[str]:
    return [stage.label for stage in result.made]


def contents(result: Result, *, but: str = "") -> dict[str, bytes]:
    """Return every file of the run's artifacts, except one kind and the cards."""
    store = store_of(result)
    found: dict[str, bytes] = {}
    for stage in result.plan.stages:
        if stage.kind != but:
            folder = store.path(stage.kind, stage.key)
            paths = [p for p in folder.rglob("*") if p.is_file() and p.name != "README.md"]
            found |= {str(path.relative_to(store.root)): path.read_bytes() for path in paths}
    return found


def weights(result: Result, method: str) -> dict[str, Tensor]:
    (member,) = [m for m in result.plan.members if m.method == method]
    folder = store_of(result).path("student", member.student.key)
    return load_file(folder / "model" / "model.safetensors")


def tracked(result: Result) -> tuple[str, str]:
    """Where MLflow has the run: its address, and the run's id."""
    assert result.tracking
    uri, run_id = result.tracking
    assert run_id
    return uri, run_id


def tree(result: Result) -> tuple[Run, dict[str, Run]]:
    uri, run_id = tracked(result)
    assert run_id
    return run_tree(uri, run_id)


def history(result: Result, run: Run) -> list[Point]:
    return points(tracked(result)[0], run)


def journal(result: Result, *stages: Stage) -> list[Point]:
    return journal_points(store_of(result), *stages)


def test_the_stages_are_made_in_order(first: Result) -> None:
    assert labels(first) == [stage.label for stage in first.plan.stages]
    assert len(first.made) == 8
    store = store_of(first)
    for stage in first.plan.stages:
        assert store.damage(stage.kind, stage.key) == []
        depends = store.path(stage.kind, stage.key) / "depends.json"
        assert json.loads(depends.read_text())["stage"] == stage.kind
    assert list((store.root / "work").iterdir()) == []
    assert first.unsent == []
    resolved = json.loads((first.folder / "config.json").read_text())
    assert resolved == first.plan.config.model_dump(mode="json")
    assert json.loads((first.folder / "verdict.json").read_text()) == first.verdict.to_dict()


def test_mlflow_has_one_tree_a_run(first: Result) -> None:
    parent, nested = tree(first)
    assert parent.info.run_name == "small"
    assert parent.info.status == "FINISHED"
    assert parent.data.params["student.learning_rate"] == "0.003"
    assert parent.data.tags["knife.fingerprint"] == first.plan.key
    assert parent.data.tags["knife.data"] == ",".join(first.plan.data)
    assert parent.data.params["methods"] == "finetune, knife"
    assert all(len(value) < 50 for run in nested.values() for value in run.data.params.values())
    assert nested["knife seed 0"].data.params["align.input.weight"] == "30.0"
    for each_run in (parent, *nested.values()):
        inputs = each_run.inputs.dataset_inputs
        assert {(each.dataset.name, each.tags[0].value) for each in inputs} == {
            (f"creatures {split}", split) for split in ("train", "dev", "test")
        }
        assert all(Path(json.loads(each.dataset.source)["uri"]).is_file() for each in inputs)
    note = parent.data.tags["mlflow.note.content"]
    assert sentence(first.verdict) in note
    assert "models:/small@champion" in note
    assert parent.data.tags["knife.cluster"].startswith("1 worker on 1 host")
    for method in first.verdict.methods:
        assert parent.data.metrics[f"test_accuracy.{method.method}"] == method.accuracy
    assert set(nested) == {"teacher", "finetune seed 0", "knife seed 0"}
    assert {run.info.status for run in nested.values()} == {"FINISHED"}
    client = MlflowClient(tracked(first)[0])
    assert {f.path for f in client.list_artifacts(parent.info.run_id)} == {
        "config.yaml",
        "report.html",
        "verdict.json",
    }
    assert first.plan.teacher is not None
    expected = journal(first, first.plan.teacher)
    accuracies = [n for n in history(first, nested["teacher"]) if "_rationale" in n[0]]
    assert [name for name, _, _ in accuracies] == [
        "test_accuracy_with_rationale",
        "test_accuracy_without_rationale",
    ]
    assert sorted(history(first, nested["teacher"])) == sorted(expected + accuracies)
    for member in first.plan.members:
        found = nested[f"{member.method} seed 0"]
        assert history(first, found) == journal(first, member.student, member.evaluate)
        assert found.data.tags["knife.method"] == member.method
        assert found.data.tags["knife.fingerprint"] == member.student.key
        artifacts = client.list_artifacts(found.info.run_id)
        assert [file.path for file in artifacts] == ["README.md", "predictions.jsonl"]
        assert len(found.outputs.model_outputs) == 1
        model = client.get_logged_model(found.outputs.model_outputs[0].model_id)
        assert model.status == "READY"


def test_the_best_student_on_dev_is_the_champion(first: Result) -> None:
    parent, nested = tree(first)
    scores = {
        name: (run.data.metrics["dev_accuracy"], -run.data.metrics["dev_loss"])
        for name, run in nested.items()
        if name != "teacher"
    }
    best = max(scores, key=scores.__getitem__)
    assert parent.data.tags["knife.champion"] == best
    client = MlflowClient(tracked(first)[0])
    version = client.get_model_version_by_alias("small", "champion")
    assert version.run_id == nested[best].info.run_id
    assert [v.version for v in client.search_model_versions("name = 'small'")] == [1]


def test_a_second_run_makes_nothing_and_tells_nothing_twice(first: Result) -> None:
    before, kept = contents(first), tree(first)
    again = run(first.plan.config, no_display)
    assert again.made == []
    assert again.verdict == first.verdict
    assert again.tracking == first.tracking
    assert contents(first) == before
    parent, nested = tree(again)
    assert history(again, parent) == history(first, kept[0])
    assert set(nested) == set(kept[1])
    for name, found in nested.items():
        assert history(again, found) == history(first, kept[1][name])
        assert len(found.outputs.model_outputs) == len(kept[1][name].outputs.model_outputs)
    experiment = MlflowClient(tracked(first)[0]).search_runs([parent.info.experiment_id])
    assert len(experiment) == 4


def test_a_lost_evaluation_is_made_again_without_training(first: Result) -> None:
    before = contents(first, but="evaluate")
    member = first.plan.members[1]
    path = store_of(first).path("evaluate", member.evaluate.key)
    predictions = (path / "predictions.jsonl").read_bytes()
    shutil.rmtree(path)
    again = run(first.plan.config, no_display)
    assert labels(again) == ["test knife seed 0"]
    assert (path / "predictions.jsonl").read_bytes() == predictions
    assert contents(first, but="evaluate") == before


def test_a_damaged_prediction_file_is_found_and_made_again(first: Result) -> None:
    member = first.plan.members[0]
    path = store_of(first).path("evaluate", member.evaluate.key) / "predictions.jsonl"
    predictions = path.read_text()
    path.write_text(predictions.replace("true", "false", 1))
    again = run(first.plan.config, no_display)
    assert labels(again) == ["test finetune seed 0"]
    assert path.read_text() == predictions
    assert [note for note in again.plan.notes if "damaged" in note] == [
        f"evaluate/{member.evaluate.key} is damaged (predictions.jsonl): made again"
    ]


def test_a_damaged_shard_of_states_is_found_and_the_states_alone_made_again(
    first: Result,
) -> None:
    (stage,) = [s for s in first.plan.stages if s.kind == "states"]
    folder = store_of(first).path("states", stage.key)
    shard = sorted(folder.glob("shard-*.safetensors"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    before = contents(first, but="states")
    # A new seed reads the states.
    again = run(config(store_of(first).root, seeds=[0, 1]), no_display)
    assert set(labels(again)) == {
        "teacher states, layer 3",
        *(f"{test}{method} seed 1" for test in ("", "test ") for method in ("finetune", "knife")),
    }
    assert f"states/{stage.key} is damaged ({shard.name}): made again" in again.plan.notes
    assert shard.read_bytes() == whole
    assert contents(first, but="states") == before


def test_a_lost_student_is_trained_again_to_the_same_weights(first: Result) -> None:
    store, member = store_of(first), first.plan.members[1]
    before = weights(first, "knife")
    shutil.rmtree(store.path("student", member.student.key))
    again = run(first.plan.config, no_display)
    assert labels(again) == ["knife seed 0"]
    after = weights(first, "knife")
    assert all(torch.equal(before[name], after[name]) for name in before)
    # MLflow's metrics are unchanged.
    _, nested = tree(again)
    found = timeless(history(again, nested["knife seed 0"]))
    expected = journal(again, member.student, member.evaluate)
    assert found == timeless(expected)


@pytest.mark.parametrize(
    "name", ["data/*/train.arrow", "tokens/*/dev.arrow", "sources/*/facts.json"]
)
@pytest.mark.parametrize("change", [lambda whole: whole[:-20], lambda whole: whole[:-1] + b"?"])
def test_damaged_data_is_written_again(
    first: Result, name: str, change: Callable[[bytes], bytes]
) -> None:
    (path,) = store_of(first).root.glob(name)
    whole = path.read_bytes()
    # Not in place, as another test may have mapped the file into memory.
    path.unlink()
    path.write_bytes(change(whole))
    assert run(first.plan.config, no_display).made == []
    assert path.read_bytes() == whole


def test_an_online_teacher_gives_the_results_of_stored_states(first: Result) -> None:
    root = store_of(first).root
    online = run(config(root, methods=["knife"], align={"states": "online"}), no_display)
    # The teacher exists; of its states, only the variance is needed.
    assert labels(online) == ["teacher states, layer 3", "knife seed 0", "test knife seed 0"]
    stored = weights(first, "knife")
    for name, tensor in weights(online, "knife").items():
        assert float((tensor - stored[name]).norm() / stored[name].norm()) < 1e-4
    one, other = (
        timeless(journal(result, result.plan.members[-1].student)) for result in (first, online)
    )
    for (name, step, value), (same_name, same_step, same) in zip(one, other, strict=True):
        assert (name, step) == (same_name, same_step)
        assert value == pytest.approx(same, rel=1e-4)


def test_teacher_init_starts_from_the_teacher(first: Result) -> None:
    root = store_of(first).root
    still = {"epochs": 1, "learning_rate": 1e-12}
    result = run(config(root, methods=["teacher_init", "finetune"], student=still), no_display)
    assert first.plan.teacher is not None
    folder = store_of(first).path("teacher", first.plan.teacher.key)
    teacher = load_file(folder / "model" / "model.safetensors")
    student = weights(result, "teacher_init")
    assert set(student) == set(teacher)
    assert all(torch.allclose(student[name], teacher[name], atol=1e-7) for name in teacher)
    other = weights(result, "finetune")
    # A hundred times the difference that equal weights may have.
    assert not all(torch.allclose(other[name], teacher[name], atol=1e-5) for name in teacher)


def test_without_the_bottleneck_the_teacher_reads_rationale_states(first: Result) -> None:
    root = store_of(first).root
    variant = {"name": "open", "method": "knife", "teacher": {"bottleneck": False}}
    result = run(config(root, methods=["finetune", variant]), no_display)
    (stage,) = [s for s in result.plan.stages if s.kind == "teacher"]
    settings = store_of(result).path("teacher", stage.key) / "model" / "knife.json"
    assert json.loads(settings.read_text())["bottleneck"] is False
    student = store_of(result).path("student", result.plan.members[1].student.key)
    assert json.loads((student / "model" / "knife.json").read_text())["bottleneck"] is True


def test_two_methods_with_one_student_have_its_metrics_each(first: Result) -> None:
    """Finetuning sees no rationales, so this variant has the same student."""
    same = {"name": "same", "method": "finetune", "data": {"rationale": "none"}}
    result = run(config(store_of(first).root, methods=["finetune", same]), no_display)
    assert result.made == []
    finetune, other = result.plan.members
    assert finetune.student.key == other.student.key
    _, nested = tree(result)
    for name in ("finetune seed 0", "same seed 0"):
        assert history(result, nested[name]) == journal(result, finetune.student, finetune.evaluate)


def test_a_run_that_fails_says_so_in_mlflow_and_can_be_mended(tmp_path: Path) -> None:
    wild = config(tmp_path, methods=["finetune"], student={"epochs": 4, "learning_rate": 3e37})
    with pytest.raises(WorkFailedError, match="finetune seed 0: the ") as diverged:
        run(wild, no_display)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "knife"]
    found = client.search_runs([experiment.experiment_id], "attributes.run_name = 'small'")
    assert [run.info.status for run in found] == ["FAILED"]
    assert str(diverged.value) in found[0].data.tags["mlflow.note.content"]
    assert not list(tmp_path.glob("student/*"))

    @contextmanager
    def interrupting(*_: object) -> Iterator[Callable[[object], None]]:
        raise KeyboardInterrupt
        yield lambda _: None

    tame = config(tmp_path, methods=["finetune"])
    with pytest.raises(KeyboardInterrupt):
        run(tame, interrupting)
    ended = run(tame, no_display)
    assert labels(ended) == ["finetune seed 0", "test finetune seed 0"]
    parent, nested = tree(ended)
    assert parent.info.status == "FINISHED"
    assert {found.info.status for found in nested.values()} == {"FINISHED"}
