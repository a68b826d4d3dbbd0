"""A student's choices for a file of questions, in one plain process."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from knife.data.example import Example
from knife.data.jsonl import cap, read_questions
from knife.errors import UserError, raise_faults

# More than any tokenizer makes of a question: whether it fits is said here, by id.
UNBOUNDED = 10**9


@dataclass(frozen=True)
class Predictions:
    """Choices for the questions of a file.

    Attributes:
        rows: one an example: id, choice (text), index of the choice, probabilities.
        right: number of right choices among the questions whose answer is known.
        answered: number of those questions.
    """

    rows: list[dict[str, Any]]
    right: int
    answered: int

    @property
    def accuracy(self) -> float | None:
        """Share of right choices; None where no answer is known."""
        return self.right / self.answered if self.answered else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"accuracy": self.accuracy, "answered": self.answered, "predictions": self.rows}

    def sentence(self) -> str:
        """The accuracy in words, or why there is none."""
        if not self.answered:
            return f"{len(self.rows)} questions, none with its answer: no accuracy"
        share = 100 * self.right / self.answered
        return f"accuracy {share:.1f} % ({self.right} of {self.answered} questions right)"


def predict(student: Path, file: Path, output: Path | None = None) -> Predictions:
    """Let a student answer the questions of a JSON Lines file; no answer or rationale is needed.

    With `output`, one JSON line an example is written there, whole or not at all.

    Raises:
        UserError: with all faults of the student's folder, the file and the output.
    """
    folder, examples, unanswered = _inputs(student, file, output)

    # Imported when nothing is wrong with the inputs: torch takes seconds.
    from knife.data.tokens import tokenize
    from knife.method.backbone import load_tokenizer
    from knife.method.objective import Objective
    from knife.train.context import PlainContext
    from knife.train.evaluate import choose, probabilities, score_split
    from knife.train.place import load_published
    from knife.train.quiet import quiet

    quiet()
    tokenizer = load_tokenizer(folder, "STUDENT")
    # What a student reads is the question alone.
    questions = [replace(example, rationale=None) for example in examples]
    tokens, _ = tokenize(questions, tokenizer, UNBOUNDED)
    lengths = [len(example.input_ids) for example in tokens]
    raise_faults(cap(_too_long(file, examples, lengths, _settings(folder)["max_tokens"])))
    context = PlainContext()
    objective = Objective(load_published(folder)).to(context.device).eval()
    pad_id = tokenizer.pad_token_id or 0
    scores = score_split(objective, tokens, pad_id, context, rationale=False)
    rows, right = [], 0
    for example, values in zip(examples, scores, strict=True):
        index = choose(values)
        right += example.id not in unanswered and index == example.answer
        rows.append(
            {
                "id": example.id,
                "choice": example.choices[index],
                "index": index,
                "probabilities": [round(p, 6) for p in probabilities(values)],
            }
        )
    if output:
        _write(rows, output)
    return Predictions(rows, right, len(examples) - len(unanswered))


def _inputs(student: Path, file: Path, output: Path | None) -> tuple[Path, list[Example], set[str]]:
    """The student's model folder, the questions, and the ids of those without an answer."""
    faults: list[str] = []
    folder, examples, unanswered = student, list[Example](), set[str]()
    try:
        folder = student_model(student)
    except UserError as error:
        faults += error.faults
    try:
        examples, unanswered = read_questions(file)
    except UserError as error:
        faults += error.faults
    if output and (output.is_dir() or not output.parent.is_dir()):
        what = "is a folder" if output.is_dir() else "lies in a folder that is not there"
        faults.append(f"--output: {output} {what}; give a file in a folder that is there")
    raise_faults(faults)
    return folder, examples, unanswered


def student_model(student: Path) -> Path:
    """The model folder of a student: its artifact's folder, or the `model` folder in it.

    Raises:
        UserError: it is neither, or a teacher's.
    """
    for folder in (student, student / "model"):
        if (folder / "knife.json").is_file():
            if _settings(folder)["rationale"]:
                raise UserError(
                    f"STUDENT: {student} is a teacher, which reads rationales; "
                    "give a student's folder: STORE/student/KEY"
                )
            return folder
    raise UserError(
        f"STUDENT: {student} is no folder of a student (it has no knife.json); "
        "`knife run` leaves one for each method and seed: STORE/student/KEY"
    )


def line(row: dict[str, Any]) -> str:
    """One row as JSON."""
    return json.dumps(row, ensure_ascii=False)


def _settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / "knife.json").read_text())
    return settings


def _too_long(file: Path, examples: list[Example], lengths: list[int], limit: int) -> list[str]:
    return [
        f"{file}: id {example.id!r}: question and choices are {length} tokens long, but the "
        f"student was trained for at most {limit} (data.max_tokens): shorten them"
        for example, length in zip(examples, lengths, strict=True)
        if length > limit
    ]


def _write(rows: list[dict[str, Any]], output: Path) -> None:
    unfinished = output.with_name(f".{output.name}.tmp")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.writelines(line(row) + "\n" for row in rows)
        unfinished.replace(output)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise UserError(f"--output: {output} cannot be written: {error.strerror}") from error
