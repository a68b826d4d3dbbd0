"""The example in plain torch trains like the pipeline."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from pair import made
from small_run import small_config
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from knife.data.batches import training_rows
from knife.models.source import EMBEDDED

MINIMAL = Path(__file__).parents[2] / "examples" / "minimal.py"


@pytest.fixture(scope="module")
def minimal() -> dict[str, Any]:
    return runpy.run_path(str(MINIMAL))


def test_its_losses_are_the_pipelines(minimal: dict[str, Any], tmp_path: Path) -> None:
    config = small_config(tmp_path / "store", methods=["finetune", "knife"])
    result = made(config)
    plan, store = result.plan, result.store
    (splits,) = plan.data.values()
    for name in ("train", "dev", "test"):
        rows = [
            {
                "question": example.question,
                "choices": example.choices,
                "answer": example.answer,
                "rationale": example.rationale,
            }
            for example in getattr(splits, name)
        ]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny-t5"])
    names = ("train", "dev", "test")
    data = {name: minimal["read"](tmp_path / f"{name}.jsonl", tokenizer) for name in names}

    def trained(training: Any, rationale: bool, teacher: Any = None) -> tuple[Any, list[Any]]:
        model = AutoModelForSeq2SeqLM.from_pretrained(EMBEDDED["tiny-t5"])
        settings = minimal["Settings"](
            epochs=training.epochs,
            batch_size=training.batch_size,
            learning_rate=training.learning_rate,
        )
        lengths = [len(e.input) + rationale * len(e.rationale) for e in data["train"]]

        def batches(epoch: int) -> list[list[int]]:
            rows = training_rows(lengths, training.batch_size, 0, epoch)
            return [each.rows for each in rows]

        return model, minimal["train"](model, data, settings, batches, rationale, teacher)

    def check(kind: str, key: str, history: list[Any], *, aligned: bool = False) -> None:
        journal = store.path(kind, key) / "journal.jsonl"
        metrics = [json.loads(line)["metrics"] for line in journal.read_text().splitlines()]
        trained = [row for row in metrics if "loss" in row]
        evaluated = [row for row in metrics if "dev_loss" in row]
        assert [e.loss for e in history] == pytest.approx([r["loss"] for r in trained], rel=1e-4)
        assert [e.dev_loss for e in history] == pytest.approx(
            [row["dev_loss"] for row in evaluated], rel=1e-4
        )
        assert [e.accuracy for e in history] == [row["dev_accuracy"] for row in evaluated]
        if aligned:
            wanted = [row["input_alignment"] for row in trained]
            assert [e.alignment for e in history] == pytest.approx(wanted, rel=1e-4)

    (of_teacher,) = (stage for stage in plan.stages if stage.kind == "teacher")
    teacher, history = trained(config.teacher, rationale=True)
    check("teacher", of_teacher.key, history)
    states = minimal["teacher_states"](teacher, data["train"])
    for member in plan.members:
        aligned = member.method == "knife"
        _, history = trained(config.student, False, states if aligned else None)
        check("student", member.student.key, history, aligned=aligned)
