"""A student's choices for a file of questions, made in this process or by several Ray workers."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knife.core.alone import alone
from knife.core.errors import UserError, raise_errors
from knife.core.exits import say
from knife.core.values import as_json
from knife.core.version import __version__
from knife.data.example import Example
from knife.inference.answers import Answerer, Answers, Tally, question_tokens, too_long
from knife.inference.parts import Part, refuse_errors, split
from knife.store.store import fingerprint
from knife.terminal.counter import counter

if TYPE_CHECKING:
    from knife.models.tokenizer import Room

# The most that a lost worker costs; questions are sorted by length within a part.
PART_ROWS = 1024
# Rows of version 1 lack `tied`.
_ROW_VERSION = 2
# Other versions of these may compute slightly different numbers.
_LIBRARIES = ("torch", "transformers", "tokenizers")


@dataclass(frozen=True)
class Predictions:
    """Choices for the questions of a file.

    Attributes:
        tally: counts of all questions, of those with a known answer, of the right ones among
            these, of questions with a tie, and of those without a choice because too long.
        rows: one per question, in the file's order: id, choice (text), index of the choice,
            probabilities, and `tied`, the indices of choices tied for first place, if any;
            empty if they were written to a file and not read back.
    """

    tally: Tally
    rows: list[dict[str, Any]]

    @property
    def accuracy(self) -> float | None:
        """Share of right choices, a tie of k counting 1/k; None if no answer is known."""
        return self.tally.right / self.tally.answered if self.tally.answered else None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "accuracy": self.accuracy,
            "answered": self.tally.answered,
            "tied": self.tally.tied,
            "too_long": self.tally.too_long,
            "predictions": self.rows,
        }

    def sentence(self) -> str:
        """Return a sentence with the accuracy, or why there is none, the number of ties, and the
        number of questions that are too long."""
        tally = self.tally
        more = ""
        if tally.tied:
            more = (
                f"; {tally.tied} of {tally.questions} questions have choices tied for the first "
                'place, which the student cannot tell apart ("tied"): of k such choices, the '
                "right one counts 1/k"
            )
        if tally.too_long:
            more += (
                f"; {tally.too_long} of {tally.questions} questions are too long for the student: "
                "they have no choice and are not counted"
            )
        if self.accuracy is None:
            return f"{tally.questions} questions, none with a known answer: no accuracy{more}"
        right = f"{tally.right:.1f}".removesuffix(".0")
        said = f"({right} of {tally.answered} questions right)"
        return f"accuracy {100 * self.accuracy:.1f} % {said}{more}"


def predict(
    student: Path,
    file: Path,
    output: Path | None = None,
    workers: int | None = None,
    *,
    keep_rows: bool = True,
    skip_too_long: bool = False,
) -> Predictions:
    """Answer the questions of a JSON Lines file with a student; neither answers nor rationales are
    needed.

    With `output`, one JSON line per question is written there, all of them or none. Until then
    finished parts are stored beside it, so that after a kill the same call makes only the missing
    ones. With `workers`, that many Ray workers make them.

    With `skip_too_long`, a question too long for the student gets a row with the reason instead of
    a choice, and is counted; otherwise it is a user error.

    Without `keep_rows` the result has no rows, and memory does not grow with the file.

    Raises:
        UserError: with everything wrong with the student's folder, the file and the output; more
            workers than CPUs; another command is writing the same output.
    """
    job = _prepared(student, file, output, workers, skip_too_long)
    with _folder(output) as folder:
        answers = Answers(folder / job.key)
        answers.folder.mkdir(exist_ok=True)
        _answer(job, answers, workers)
        whole = output or folder / "output"
        tally = answers.join(job.parts, whole)
        return Predictions(tally, read_rows(whole) if keep_rows else [])


def predict_examples(
    student: Path, examples: Iterable[Mapping[str, Any]], *, skip_too_long: bool = False
) -> Predictions:
    """Answer questions in memory with a student, in the format of the rows of a file.

    Raises:
        UserError: as `predict` does; the first example is `examples:1`.
    """
    if isinstance(examples, Mapping) or not isinstance(examples, Iterable):
        raise UserError(
            "examples: must be a path or a list of mappings, but got "
            f"{type(examples).__name__}; one example is [example]"
        )
    lines, errors = [], []
    for number, example in enumerate(examples, 1):
        try:
            lines.append(f"{as_json(example)}\n")
        except (TypeError, ValueError) as error:
            errors.append(f"examples:{number}: {error}")
    raise_errors(errors)
    with tempfile.TemporaryDirectory(prefix="knife-predict-") as name:
        file = Path(name).resolve() / "examples"
        with file.open("w", encoding="utf-8") as whole:
            whole.writelines(lines)
        try:
            return predict(student, file, skip_too_long=skip_too_long)
        except UserError as error:
            said = (message.removeprefix(f"{file.parent}/") for message in error.errors)
            raise UserError(*said) from None


def parts_folder(output: Path) -> Path:
    """Return the folder of an output's finished parts, which exists while some are missing."""
    output = output.resolve()
    return output.with_name(f"{output.name}.parts")


def read_rows(output: Path) -> list[dict[str, Any]]:
    """Read the rows of an output file."""
    with output.open(encoding="utf-8") as file:
        return [json.loads(text) for text in file]


@dataclass(frozen=True)
class _Job:
    """A student's model folder, a file in parts, and the key of all the answers depend on."""

    model: Path
    file: Path
    parts: list[Part]
    key: str


def _prepared(
    student: Path, file: Path, output: Path | None, workers: int | None, skip_too_long: bool
) -> _Job:
    """Check all arguments and return the job, or raise everything wrong with them."""
    model, parts = None, list[Part]()
    found: list[str] = []
    try:
        model = student_model(student).resolve()
    except UserError as error:
        found += error.errors
    try:
        parts = split(file, PART_ROWS)
        key = _key(model, parts, skip_too_long) if model else ""
        if not (key and output and (parts_folder(output) / key).is_dir()):
            _check(model, file, parts, skip_too_long=skip_too_long)
    except UserError as error:
        found += error.errors
    raise_errors([*found, *_output_errors(output), *_worker_errors(workers, output)])
    assert model
    return _Job(model, file.resolve(), parts, key)


def _output_errors(output: Path | None) -> list[str]:
    if output is None or (output.parent.is_dir() and not output.is_dir()):
        return []
    what = "is a folder" if output.is_dir() else "is in a folder that does not exist"
    return [f"--output: {output} {what}; give a file in an existing folder"]


def _worker_errors(workers: int | None, output: Path | None) -> list[str]:
    if workers is None:
        return []
    from knife.inference.workers import place_errors

    missing = "--workers: needs --output FILE, beside which workers store finished parts"
    return [*([] if output else [missing]), *place_errors(workers)]


def _check(model: Path | None, file: Path, parts: list[Part], *, skip_too_long: bool) -> None:
    """Refuse questions with anything wrong; without a model, lengths are not checked."""
    tokenizer: Any = None
    room: Room | None = None

    def look(questions: list[Example]) -> list[tuple[Example | None, str]]:
        nonlocal tokenizer, room
        if not (model and questions):
            return []
        # Imported once a question is valid: transformers takes seconds to import.
        from knife.models.check import check_model
        from knife.models.quiet import quiet
        from knife.models.tokenizer import room_for_choices
        from knife.train.model_settings import ModelSettings

        if tokenizer is None:
            quiet()
            tokenizer = check_model(model, "STUDENT").tokenizer
            room = room_for_choices(model, tokenizer)
        settings = ModelSettings.read(model)
        try:
            tokens = question_tokens(questions, tokenizer)
        except UserError as error:
            return [(None, message) for message in error.errors]
        errors = _of_other_kind(questions, settings.open)
        if not skip_too_long:
            reasons = zip(questions, too_long(tokens, settings, room), strict=True)
            hint = "shorten it, or leave such questions out (--skip-too-long)"
            errors += [
                (question, f"id {question.id!r}: {reason}: {hint}")
                for question, reason in reasons
                if reason
            ]
        return errors

    with counter("checking", _count(parts)) as count:
        refuse_errors(file, parts, look, lambda part: count(part.rows))


def _answer(job: _Job, answers: Answers, workers: int | None) -> None:
    """Answer the parts that have no answers yet."""
    missing = answers.missing(job.parts)
    if len(missing) < len(job.parts):
        done = _count(job.parts) - _count(missing)
        say(f"{done:,} of {_count(job.parts):,} questions are already answered; resuming …")
    if not missing:
        return
    with counter("answering", _count(missing)) as count:
        if workers is None:
            for part in Answerer(job.model).answer_all(job.file, missing, answers):
                count(part.rows)
        else:
            from knife.cluster.address import refuse_dead_cluster
            from knife.inference.workers import answer_parts

            refuse_dead_cluster()
            say(f"{_count(missing):,} questions for {workers} Ray workers; starting …")
            answer_parts(
                job.model, job.file, answers, missing, workers, lambda part: count(part.rows)
            )
    left = answers.missing(job.parts)
    if left:
        raise RuntimeError(f"parts without answers: {left}")


def _count(parts: Sequence[Part]) -> int:
    return sum(part.rows for part in parts)


def _key(model: Path, parts: list[Part], skip_too_long: bool) -> str:
    hashed = {}
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        hashed[path.relative_to(model).as_posix()] = digest
    return fingerprint(
        {
            "student": hashed,
            "questions": [part.digest for part in parts],
            "rows": [PART_ROWS, _ROW_VERSION],
            "skip_too_long": skip_too_long,
            "versions": [__version__, *map(version, _LIBRARIES)],
        }
    )


@contextmanager
def _folder(output: Path | None) -> Iterator[Path]:
    """Lock and yield the folder of the parts; remove it when the work inside is done."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="knife-predict-") as name:
            yield Path(name)
        return
    folder = parts_folder(output)
    with alone(folder, "--output", output, "give another file"):
        yield folder
        shutil.rmtree(folder)


def student_model(student: Path) -> Path:
    """Return the model folder of a student: its artifact's folder, or the `model` folder in it.

    Raises:
        UserError: it is neither, it is a teacher's, or it is damaged.
    """
    from knife.models.files import damage

    for folder in (student, student / "model"):
        if (folder / "knife.json").is_file():
            raise_errors(f"STUDENT: {error}" for error in damage(folder))
            if json.loads((folder / "knife.json").read_text())["rationale"]:
                raise UserError(
                    f"STUDENT: {student} is a teacher, which reads rationales; "
                    "give a student's folder: STORE/student/KEY"
                )
            return folder
    raise UserError(
        f"STUDENT: {student} is not the folder of a student (it has no knife.json); "
        "`knife run` makes one for each method and seed: STORE/student/KEY"
    )


def _of_other_kind(examples: list[Example], opened: bool) -> list[tuple[Example | None, str]]:
    if opened:
        said = "has choices, but the student was trained to generate its answers: remove them"
    else:
        said = "has no choices, but the student was trained to choose among some: add them"
    return [(e, f"id {e.id!r}: {said}") for e in examples if e.open != opened]
