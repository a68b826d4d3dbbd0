"""`knife predict`: the choices that the run recorded, for questions with and without answers."""

import json
from pathlib import Path

import pytest
from command_fixtures import Command, FinishedRun

from knife.data.jsonl import read_examples, read_questions
from knife.errors import UserError
from knife.predict import predict


@pytest.mark.parametrize("method", ["finetune", "knife"])
def test_choices_and_accuracy_are_those_of_the_run(finished_run: FinishedRun, method: str) -> None:
    found = predict(finished_run.student(method), finished_run.test_file)
    recorded = {m["method"]: m["accuracy"] for m in finished_run.result["verdict"]["methods"]}
    assert found.accuracy == recorded[method]
    key = finished_run.student(method).name
    rows = None
    for depends in finished_run.store.glob("evaluate/*/depends.json"):
        if json.loads(depends.read_text())["model"] == key:
            rows = (depends.parent / "predictions.jsonl").read_text().splitlines()
    assert rows
    for own, row in zip(found.rows, map(json.loads, rows), strict=True):
        assert (own["id"], own["index"]) == (row["id"], row["choice"])
        assert own["probabilities"] == pytest.approx(row["probabilities"], abs=1e-5)


def test_answers_and_rationales_are_not_needed(
    command: Command, finished_run: FinishedRun, tmp_path: Path
) -> None:
    examples = read_examples(finished_run.test_file)
    bare = tmp_path / "bare.jsonl"
    lines = [{"id": e.id, "question": e.question, "choices": e.choices} for e in examples]
    bare.write_text("\n".join(json.dumps(line) for line in lines))
    model = finished_run.student("knife") / "model"
    ended = command("predict", model, bare)
    assert ended.status == 0
    assert ended.err == f"{len(examples)} questions, none with its answer: no accuracy\n"
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert rows == predict(model, finished_run.test_file).rows
    for row, example in zip(rows, examples, strict=True):
        assert row["id"] == example.id
        assert row["choice"] == example.choices[row["index"]]
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
        assert row["probabilities"][row["index"]] == max(row["probabilities"])


def test_output_file_and_json(command: Command, finished_run: FinishedRun, tmp_path: Path) -> None:
    output = tmp_path / "choices.jsonl"
    student = finished_run.student("finetune")
    ended = command("predict", student, finished_run.test_file, "-o", output, "--json")
    found = json.loads(ended.out)
    assert ended.err.startswith(f"accuracy {100 * found['accuracy']:.1f} % (")
    assert found["answered"] == len(found["predictions"]) == 20
    written = [json.loads(line) for line in output.read_text().splitlines()]
    assert written == found["predictions"]
    assert [path.name for path in tmp_path.iterdir()] == ["choices.jsonl"]


def test_accuracy_is_of_the_answered_questions(finished_run: FinishedRun, tmp_path: Path) -> None:
    examples = read_examples(finished_run.test_file)
    student = finished_run.student("finetune")
    choices = [row["index"] for row in predict(student, finished_run.test_file).rows]
    mixed = tmp_path / "mixed.jsonl"
    lines = []
    for number, (example, choice) in enumerate(zip(examples, choices, strict=True)):
        line = {"id": example.id, "question": example.question, "choices": example.choices}
        # One right answer, three wrong ones, the others unknown.
        wanted = {0: choice, 1: 1 - choice, 2: 1 - choice, 3: 1 - choice}
        lines.append(line | ({"answer": wanted[number]} if number in wanted else {"answer": None}))
    mixed.write_text("\n".join(map(json.dumps, lines)))
    found = predict(student, mixed)
    assert (found.right, found.answered, found.accuracy) == (1, 4, 0.25)
    assert found.sentence() == "accuracy 25.0 % (1 of 4 questions right)"


def test_a_question_longer_than_the_student_was_trained_for(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    path = tmp_path / "long.jsonl"
    long = {"id": "long", "question": "forest " * 300, "choices": ["yes", "no"]}
    short = {"id": "short", "question": "forest ?", "choices": ["yes", "no"]}
    path.write_text(f"{json.dumps(short)}\n{json.dumps(long)}\n{json.dumps(long | {'id': 'two'})}")
    with pytest.raises(UserError) as error:
        predict(finished_run.student("knife"), path)
    first, second = error.value.faults
    assert first.startswith(f"{path}: id 'long': question and choices are 3")
    assert "at most 256 (data.max_tokens)" in first
    assert "id 'two'" in second


def test_questions_are_read_strictly_but_for_the_answer(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    known = {"id": "a", "question": "q ?", "choices": ["x", "y"], "answer": "y"}
    unknown = {"id": "b", "question": "q ?", "choices": ["x", "y"]}
    path.write_text(f"{json.dumps(known)}\n{json.dumps(unknown)}\n")
    examples, unanswered = read_questions(path)
    assert [(e.id, e.answer) for e in examples] == [("a", 1), ("b", 0)]
    assert unanswered == {"b"}
    with pytest.raises(UserError, match="answer: is missing"):
        read_examples(path)
    path.write_text(f"{json.dumps(known | {'answer': 'z'})}\n{json.dumps(unknown | {'id': 'a'})}\n")
    with pytest.raises(UserError) as error:
        read_questions(path)
    assert [fault.split(": ")[1] for fault in error.value.faults] == ["answer", "id"]
