"""A run, its report and `predict` with choices of the same tokens: chance, not 0 or 1."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_fixtures import Command
from page_text import section
from small import wide, with_compatible_letters
from small_run import silent, small_config

from knife.core.errors import UserError
from knife.data.example import Example
from knife.data.jsonl import write_examples
from knife.inference.file import predict
from knife.models.source import EMBEDDED
from knife.pipeline.dry_run import dry_run
from knife.pipeline.run import Result, run
from knife.plan.plan import plan_run

PAIR = ("forest", wide("forest"))
# The right one is always first: a model that picks the first of equal ones would be right.
TEST = [
    Example("t0", "which home has a kebik ?", PAIR, 0),
    Example("t1", "which home has a gramap ?", PAIR, 0),
    Example("t2", "can a kebik swim ?", ("yes", "no"), 0),
    Example("t3", "can a gramap swim ?", ("yes", "no"), 1),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write data in which half of the test questions have choices of the same tokens."""
    folder = tmp_path_factory.mktemp("data")
    plain = [
        Example(f"e{n}", f"is {n} even ?", ("yes", "no"), n % 2, f"{n} is a number .")
        for n in range(24)
    ]
    write_examples(folder / "train.jsonl", plain[:16])
    write_examples(folder / "dev.jsonl", plain[16:])
    write_examples(folder / "test.jsonl", TEST)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "nfkc"
    return str(with_compatible_letters(EMBEDDED["tiny-t5"], folder))


def changes(data: Path, model: str, **others: Any) -> dict[str, Any]:
    return {
        "data": {"source": str(data)},
        "model": {"teacher": model, "student": model},
        "methods": ["finetune", "knife"],
        "student": {"epochs": 1},
        "teacher": {"epochs": 1},
        **others,
    }


@pytest.fixture(scope="module")
def made(data: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(small_config(tmp_path_factory.mktemp("store"), **changes(data, model)), silent)


def rows(result: Result, method: str) -> list[dict[str, Any]]:
    (member,) = [m for m in result.plan.members if m.method == method]
    text = result.store.read("evaluate", member.evaluate.key, "predictions.jsonl")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("method", ["finetune", "knife"])
def test_tied_questions_are_at_chance_and_counted(made: Result, method: str) -> None:
    found = rows(made, method)
    assert [(row["right"], row["tied"]) for row in found[:2]] == [(0.5, [0, 1])] * 2
    assert all("tied" not in row and isinstance(row["right"], bool) for row in found[2:])
    (verdict,) = [m for m in made.verdict.methods if m.method == method]
    assert verdict.accuracy == (1 + sum(row["right"] for row in found[2:])) / 4
    (member,) = [m for m in made.plan.members if m.method == method]
    (row,) = map(
        json.loads, made.store.read("evaluate", member.evaluate.key, "journal.jsonl").splitlines()
    )
    assert (row["metrics"]["test_accuracy"], row["metrics"]["test_ties"]) == (verdict.accuracy, 2)


def test_verdict_report_and_cards_say_so(made: Result) -> None:
    (note,) = [note for note in made.verdict.notes if note.startswith("tied answers: ")]
    assert note.startswith("tied answers: 2 of 4 (finetune), 2 of 4 (knife), 2 of 4 (teacher, ")
    text = " ".join(section((made.folder / "report.html").read_text(), "Methods").split())
    assert note in text
    for member in made.plan.members:
        card = (made.store.path("student", member.student.key) / "README.md").read_text()
        assert note in card


def test_a_start_says_so_before(made: Result, data: Path, model: str) -> None:
    found = dry_run(small_config(made.store.root, **changes(data, model)))
    (note,) = [note for note in found.notes if "same tokens" in note]
    assert note.startswith("in 2 of 4 test examples choices become the same tokens (tokenizer of ")
    assert f"{model}): 't0' (" in note
    assert note.endswith(
        "in 2 the right choice is one of them: a tie of k choices counts 1/k at most"
    )
    assert note in made.plan.notes


def test_predict_counts_ties_and_marks_them(
    made: Result, data: Path, command: Command, tmp_path: Path
) -> None:
    student = made.store.path("student", made.plan.members[0].student.key)
    found = predict(student, data / "test.jsonl")
    assert [row.get("tied") for row in found.rows] == [[0, 1], [0, 1], None, None]
    assert found.accuracy == made.verdict.methods[0].accuracy
    ended = command("predict", student, data / "test.jsonl", "--json")
    values = json.loads(ended.out)
    assert (values["tied"], values["accuracy"]) == (2, found.accuracy)
    assert "; 2 of 4 questions have choices tied for the first place" in ended.err
    # Without answers too.
    bare = tmp_path / "bare.jsonl"
    bare.write_text(json.dumps({"id": "x", "question": "which ?", "choices": [*PAIR]}) + "\n")
    ended = command("predict", student, bare, "--output", tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["tied"] == [0, 1]
    assert "no accuracy; 1 of 1 questions have choices tied" in ended.err


def test_a_split_that_cannot_be_told_apart_is_refused(model: str, tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        write_examples(
            tmp_path / f"{name}.jsonl",
            [Example(f"{name}{n}", f"question {n} ?", PAIR, n % 2, "so it is .") for n in range(4)],
        )
    with pytest.raises(UserError) as caught:
        plan_run(small_config(tmp_path / "store", **changes(tmp_path, model)))
    (error,) = caught.value.errors
    assert error.startswith("data.source: in 4 of 4 train, 4 of 4 dev, 4 of 4 test examples the ")
    assert "'train" in error
    # A different tokenizer distinguishes them.
    plan_run(small_config(tmp_path / "store", **changes(tmp_path, "tiny-t5")))
