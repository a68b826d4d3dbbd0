"""The model cards that a run writes beside its students."""

import json
import re
import shutil
from pathlib import Path

import pytest
from command_fixtures import Command, FinishedRun
from huggingface_hub import ModelCard
from s3_server import S3

from knife import run
from knife.inference.file import predict
from knife.report.cards import read_card
from knife.store.store import Store


def test_a_run_leaves_a_card_beside_each_student(finished_run: FinishedRun) -> None:
    verdict = {m["method"]: m for m in finished_run.result["verdict"]["methods"]}
    for student in finished_run.result["students"]:
        folder = Path(student["folder"])
        card = ModelCard.load(folder / "README.md")
        (result,) = card.data.eval_results or []
        # With one seed, the student's accuracy is that of its method.
        assert result.metric_value == verdict[student["method"]]["accuracy"]
        assert (result.metric_type, result.dataset_split) == ("accuracy", "test")
        assert card.data.model_name == f"small-{student['method']}-seed-0"
        assert card.data.tags == list(dict.fromkeys(["knife", "rationales", student["method"]]))
        assert f"| key in the store | `{student['key']}` |" in card.text
        assert Store(finished_run.store, write=False).damage("student", folder.name) == []
        kept = finished_run.store.glob("mlartifacts/**/README.md")
        assert (folder / "README.md").read_bytes() in [path.read_bytes() for path in kept]


def test_cards_are_kept_and_made_where_they_are_missing(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    store = shutil.copytree(finished_run.store, tmp_path / "store")
    knife = store / "student" / finished_run.student("knife").name
    finetune = store / "student" / finished_run.student("finetune").name
    text = (knife / "README.md").read_text()
    (knife / "README.md").write_text(f"{text}More.\n")
    run(finished_run.config, store=store)
    assert (knife / "README.md").read_text() == f"{text}More.\n"
    (finetune / "README.md").unlink()
    run(finished_run.config, store=store)
    assert (knife / "README.md").read_text() == text
    assert (finetune / "README.md").is_file()


def test_cards_of_a_bucket(
    finished_run: FinishedRun,
    s3: S3,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A folder's artifacts are copied to a bucket without their cards, which a run then makes."""
    monkeypatch.setenv("KNIFE_CACHE", str(tmp_path / "host"))
    store = Store(s3.url)
    for manifest in finished_run.store.glob("*/*/manifest.json"):
        kind, key = manifest.parts[-3:-1]
        shutil.copytree(
            manifest.parent,
            store.work(kind, key),
            ignore=shutil.ignore_patterns("manifest.json", "README.md"),
            dirs_exist_ok=True,
        )
        store.publish(kind, key, json.loads((manifest.parent / "depends.json").read_text()))
    key = finished_run.student("knife").name
    assert read_card(store, key) is None
    result = run(finished_run.config, store=s3.url, track={"uri": f"sqlite:///{tmp_path}/m.db"})
    assert result.made == []
    card = read_card(store, key)
    assert card
    assert (store.path("student", key) / "README.md").read_text() == card
    ended = command("push", f"{s3.url}/student/{key}", "owner/kebik", "--dry-run")
    assert ended.out.endswith(card)


def test_plain_transformers_answers_as_the_card_says(
    finished_run: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = finished_run.student("knife")
    *_, code = re.findall(r"```python\n(.*?)```", (student / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(code.replace("FOLDER", str(student / "model")), names)
    question = {"id": "1", "question": names["question"], "choices": ["yes", "no"]}
    file = tmp_path / "question.jsonl"
    file.write_text(json.dumps(question))
    (row,) = predict(student, file).rows
    assert capsys.readouterr().out == f"{row['choice']}\n"
    score = names["score"]
    assert callable(score)
    import torch

    scores = torch.tensor([score("yes"), score("no")])
    assert torch.softmax(scores, 0).tolist() == pytest.approx(row["probabilities"], abs=1e-5)


def test_the_python_of_the_card(
    finished_run: FinishedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    student = finished_run.student("finetune")
    code, *_ = re.findall(r"```python\n(.*?)```", (student / "README.md").read_text(), re.DOTALL)
    exec(code.replace("FOLDER", str(student)), {})
    assert capsys.readouterr().out in ("yes\n", "no\n")
