"""`knife predict`: the choices that the run recorded, for questions with and without answers."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from command_fixtures import Command, FinishedRun
from filelock import FileLock

import knife.inference.answers
from knife.core.errors import UserError
from knife.data.batches import Batch
from knife.data.example import Example
from knife.data.jsonl import read_examples
from knife.inference.answers import Answerer, Answers
from knife.inference.file import parts_folder, predict, read_rows
from knife.inference.parts import Part, read_part, split
from knife.method.objective import Losses


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


def test_a_student_that_is_damaged_is_refused(
    command: Command, finished_run: FinishedRun, tmp_path: Path
) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    for name, content, said in (
        ("model.safetensors", pointer, "model.safetensors is a git LFS pointer"),
        ("model.safetensors", "{}", "model.safetensors is not a complete safetensors file"),
        ("knife.json", "{broken", "knife.json is not JSON"),
        ("knife.json", "", "knife.json is empty"),
        ("config.json", "{broken", "config.json is not JSON"),
    ):
        folder = tmp_path / f"{name}-{len(content)}"
        shutil.copytree(finished_run.student("finetune") / "model", folder)
        (folder / name).write_text(content)
        (error,) = command("predict", folder, finished_run.test_file).errors
        assert error.startswith("STUDENT: ")
        assert said in error


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
    assert ended.err == f"{len(examples)} questions, none with a known answer: no accuracy\n"
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
        # One right answer, three wrong ones; the others are unknown.
        wanted = {0: choice, 1: 1 - choice, 2: 1 - choice, 3: 1 - choice}
        lines.append(line | ({"answer": wanted[number]} if number in wanted else {"answer": None}))
    mixed.write_text("\n".join(map(json.dumps, lines)))
    found = predict(student, mixed)
    assert (found.tally.right, found.tally.answered, found.accuracy) == (1, 4, 0.25)
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
    first, second = error.value.errors
    assert first.startswith(f"{path}:2: id 'long': question and choices are 3")
    assert "at most 256 (data.max_tokens)" in first
    assert second.startswith(f"{path}:3: id 'two'")


def test_too_long_questions_are_left_out_and_counted_where_that_is_wanted(
    command: Command, finished_run: FinishedRun, tmp_path: Path
) -> None:
    student = finished_run.student("knife")
    whole = predict(student, finished_run.test_file)
    lines = finished_run.test_file.read_text().splitlines()
    long = {"id": "long", "question": "forest " * 300, "choices": ["yes", "no"], "answer": "no"}
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join([*lines[:5], json.dumps(long), *lines[5:]]))
    output = tmp_path / "choices.jsonl"
    words = ("predict", student, path, "-o", output, "--json")
    assert command(*words).status == 2
    ended = command(*words, "--skip-too-long")
    assert ended.status == 0
    assert "1 of 21 questions are too long for the student: they have no choice and" in ended.err
    found = json.loads(ended.out)
    rows = found["predictions"]
    assert rows == [json.loads(line) for line in output.read_text().splitlines()]
    assert (found["accuracy"], found["answered"], found["too_long"]) == (whole.accuracy, 20, 1)
    left_out = rows.pop(5)
    assert left_out.pop("too_long").startswith("question and choices are 3")
    assert left_out == {"id": "long", "choice": None, "index": None, "probabilities": None}
    for own, other in zip(rows, whole.rows, strict=True):
        assert own["choice"] == other["choice"]
    path.write_text(json.dumps(long))
    alone = predict(student, path, skip_too_long=True)
    assert alone.accuracy is None
    assert [row["choice"] for row in alone.rows] == [None]


def test_all_errors_of_all_questions_are_said_at_once(
    finished_run: FinishedRun, tmp_path: Path
) -> None:
    path = tmp_path / "questions.jsonl"
    long = {"id": "long", "question": "forest " * 300, "choices": ["yes", "no"]}
    path.write_text(f"{json.dumps(long)}\nnope\n{json.dumps(long)}\n")
    with pytest.raises(UserError) as error:
        predict(finished_run.student("knife"), path)
    kinds = [message.removeprefix(f"{path}:").split(": ")[:2] for message in error.value.errors]
    assert [number for number, _ in kinds] == ["1", "2", "3", "3"]
    assert [what.split()[0] for _, what in kinds] == ["id", "broken", "id", "id"]


def test_an_output_that_is_there_is_replaced(finished_run: FinishedRun, tmp_path: Path) -> None:
    output = tmp_path / "choices.jsonl"
    output.write_text("old\n")
    found = predict(finished_run.student("knife"), finished_run.test_file, output, keep_rows=False)
    assert found.rows == []
    assert read_rows(output) == predict(finished_run.student("knife"), finished_run.test_file).rows


def test_the_next_part_is_read_while_one_is_answered(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of two sizes have the same answers, and the student's model waits for the reading of
    the part after the one that it answers."""
    whole = predict(finished_run.student("knife"), finished_run.test_file).rows
    parts = split(finished_run.test_file, -(-len(whole) // 3))
    answerer = Answerer(finished_run.student("knife") / "model")
    answers, reads, objective = Answers(tmp_path), list[threading.Event](), answerer.objective
    reads += [threading.Event() for _ in parts]
    answered: list[Part] = []

    def read(file: Path, part: Part) -> list[Example]:
        reads[parts.index(part)].set()
        return read_part(file, part)

    def model(batch: Batch) -> Losses:
        assert reads[min(len(answered) + 1, len(parts) - 1)].wait(60)
        found: Losses = objective(batch)
        return found

    monkeypatch.setattr(knife.inference.answers, "read_part", read)
    monkeypatch.setattr(answerer, "objective", model, raising=True)
    for part in answerer.answer_all(finished_run.test_file, parts, answers):
        assert part not in answers.missing(parts)
        answered.append(part)
    assert answered == parts
    answers.join(parts, tmp_path / "joined.jsonl")
    assert [row["index"] for row in read_rows(tmp_path / "joined.jsonl")] == [
        row["index"] for row in whole
    ]


def test_two_commands_do_not_write_one_output(
    command: Command, finished_run: FinishedRun, tmp_path: Path
) -> None:
    output = tmp_path / "choices.jsonl"
    parts_folder(output).mkdir()
    words = ("predict", finished_run.student("knife"), finished_run.test_file, "-o", output)
    with FileLock(parts_folder(output) / "lock"):
        (error,) = command(*words).errors
    assert error.startswith(f"--output: another command is writing {output}")
    assert command(*words).status == 0


def test_workers_that_cannot_be_had_are_refused_with_the_other_errors(
    command: Command, finished_run: FinishedRun, tmp_path: Path
) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("{nope}\n")
    student = finished_run.student("knife")
    errors = command("predict", student, questions, "--workers", 5000).errors
    assert errors[0].startswith(f"{questions}:1: broken JSON")
    assert errors[1].startswith("--workers: needs --output FILE")
    assert errors[2].startswith("--workers: 5000 workers need a CPU each, but this machine has")
    assert len(errors) == 3


def test_a_pipe_cannot_be_read_twice(finished_run: FinishedRun, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="must be a file that can be read again"):
        predict(finished_run.student("knife"), pipe)
