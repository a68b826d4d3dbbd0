"""Answers to the parts of a file of questions: each part is stored separately until all are there.

<output>.parts/lock                      held by the command that is writing the output
<output>.parts/<key>/part-<from>-<to>    the answers to one part, never incomplete
"""

import json
import math
import shutil
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from knife.core import strict_json
from knife.core.atomic import replacing
from knife.core.errors import NotFiniteError, UserError
from knife.data.example import UNANSWERED, Example
from knife.inference.parts import Part, read_part
from knife.stats.text_match import exact_match

if TYPE_CHECKING:
    from knife.data.token_table import TokenTable
    from knife.data.tokens import Tokens
    from knife.models.tokenizer import Room
    from knife.train.model_settings import ModelSettings


@dataclass(frozen=True)
class Tally:
    """Counts of all questions, of those with a known answer, of the right ones among these (a tie
    of k choices that includes the right one counts 1/k), of questions with a tie, and of questions
    too long for the student, which have no choice and are not counted as answered."""

    questions: int = 0
    answered: int = 0
    right: float = 0
    tied: int = 0
    too_long: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Answers:
    """The answers of one student to the questions of one file.

    Attributes:
        folder: holds the finished parts; its name is the key of student and file.
    """

    folder: Path

    def path(self, part: Part) -> Path:
        """Return where the answers to a part are once they are complete."""
        return self.folder / f"part-{part.first:012d}-{part.first + part.rows:012d}"

    def missing(self, parts: Sequence[Part]) -> list[Part]:
        """Return the parts without answers."""
        there = {path.name for path in self.folder.iterdir()}
        return [part for part in parts if self.path(part).name not in there]

    def begin(self, part: Part) -> int:
        """Record an attempt at a part and return the number of attempts, this one included.

        Raises:
            UserError: the disk is full or not writable.
        """
        path = self.folder / f".tries-{self.path(part).name}"
        try:
            with path.open("ab") as file:
                file.write(b".")
                return file.tell()
        except OSError as error:
            raise _unwritable(path, error) from error

    def forget_tries(self) -> None:
        """Reset the number of attempts of every part to zero."""
        for path in self.folder.glob(".tries-*"):
            path.unlink()

    def write(self, part: Part, rows: Sequence[dict[str, Any]], tally: Tally) -> None:
        """Write the answers to a part: a JSON line with the tally, then one per question.

        Raises:
            UserError: the disk is full or not writable.
        """
        head = asdict(tally)
        # As many as there are lines.
        del head["questions"]
        with self._written(self.path(part)) as file:
            file.writelines(f"{line(row)}\n".encode() for row in (head, *rows))

    def join(self, parts: Sequence[Part], output: Path) -> Tally:
        """Join the answers to all parts into one file, in the order of the questions.

        Raises:
            UserError: the disk is full or not writable.
        """
        tally = Tally()
        with self._written(output) as whole:
            for part in parts:
                with self.path(part).open("rb") as file:
                    head = json.loads(file.readline())
                    tally += Tally(part.rows, **head)
                    shutil.copyfileobj(file, whole)
        return tally

    @contextmanager
    def _written(self, path: Path) -> Iterator[BinaryIO]:
        """Open a file that appears complete and on disk, or not at all."""
        # In this folder, so that what a kill leaves behind is removed with it.
        unfinished = self.folder / f".{uuid.uuid4().hex[:12]}.tmp"
        try:
            with replacing(path, unfinished), unfinished.open("wb") as file:
                yield file
        except OSError as error:
            raise _unwritable(path, error) from error


@dataclass(frozen=True)
class _Prepared:
    """Questions, why the student cannot read each of them or "", and those it can, with tokens."""

    questions: Sequence[Example]
    reasons: Sequence[str]
    read: Sequence[Example]
    tokens: Sequence["Tokens"]


class Answerer:
    """A student, loaded once; it answers on the GPU if there is one."""

    def __init__(self, model: Path) -> None:
        """Load the student of a model folder.

        Raises:
            UserError: it cannot be read.
        """
        # Imported here: counting or joining parts needs no torch, which takes seconds to import.
        from knife.data.demonstrations import saved_demonstrations
        from knife.method.objective import Objective
        from knife.models.quiet import quiet
        from knife.models.tokenizer import load_tokenizer, room_for_choices
        from knife.train.context import PlainContext
        from knife.train.model_settings import ModelSettings
        from knife.train.stage_context import load_published

        quiet()
        self.model = model
        self.tokenizer = load_tokenizer(model, "STUDENT")
        self.settings = ModelSettings.read(model)
        self.room = room_for_choices(model, self.tokenizer)
        self.demonstrations = saved_demonstrations(model)
        self.context = PlainContext()
        self.objective = Objective(load_published(model)).to(self.context.device).eval()

    def rows(self, questions: Sequence[Example]) -> list[dict[str, Any]]:
        """Return one JSON-ready row per question: id, choice (text), its index, probabilities, and
        the indices of all choices tied for first place, if any; for an open question, id and text;
        and the rationale if one is written first. If a question is too long for the student, these
        are null and `too_long` gives the reason.

        Raises:
            UserError: the student's outputs are NaN or infinite.
        """
        return self._rows(self._prepared(questions))

    def _prepared(self, questions: Sequence[Example]) -> "_Prepared":
        from knife.data.demonstrations import put_before

        if not questions:
            return _Prepared(questions, [], [], [])
        table = question_tokens(questions, self.tokenizer)
        reasons = too_long(table, self.settings, self.room)
        read = [q for q, reason in zip(questions, reasons, strict=True) if not reason]
        if read and len(read) < len(questions):
            table = question_tokens(read, self.tokenizer)
        # Each is needed several times.
        tokens = list(table) if read else []
        if self.demonstrations and read:
            texts, most = self.demonstrations.texts(read), self.settings.preamble_tokens
            tokens, _ = put_before(tokens, texts, self.tokenizer, most)
        return _Prepared(questions, reasons, read, tokens)

    def _rows(self, prepared: "_Prepared") -> list[dict[str, Any]]:
        rows = iter(self._answered(prepared.read, prepared.tokens) if prepared.read else [])
        return [
            _no_row(question, reason) if reason else next(rows)
            for question, reason in zip(prepared.questions, prepared.reasons, strict=True)
        ]

    def _answered(
        self, questions: Sequence[Example], tokens: Sequence["Tokens"]
    ) -> list[dict[str, Any]]:
        from knife.train.evaluate import answer_fields, answer_split, choose

        pad_id = self.tokenizer.pad_token_id or 0
        asking = self.settings.asking(self.tokenizer, rationale=False)
        rows: list[dict[str, Any]] = []
        ids = [question.id for question in questions]
        try:
            answers = answer_split(self.objective, tokens, ids, pad_id, self.context, asking)
        except NotFiniteError as error:
            raise UserError(
                f"STUDENT: {self.model}: {error}; this model is unusable: train it again with a "
                "lower learning rate"
            ) from None
        for question, example, answer in zip(questions, tokens, answers, strict=True):
            if question.open:
                row: dict[str, Any] = {"id": question.id, "text": answer.text}
            else:
                index = choose(answer.scores)
                row = {"id": question.id, "choice": question.choices[index], "index": index}
            rows.append(row | answer_fields(answer, example))
        return rows

    def answer(self, file: Path, part: Part, answers: Answers) -> None:
        """Answer a part of a file and write the answers.

        Raises:
            UserError: the file has changed, or the answers cannot be written.
        """
        for _ in self.answer_all(file, [part], answers):
            pass

    def answer_all(self, file: Path, parts: Sequence[Part], answers: Answers) -> Iterator[Part]:
        """Answer parts of a file, write the answers and yield each part once they are there; the
        next one is read and tokenized while the student answers one.

        Raises:
            UserError: as `answer` does.
        """

        def prepare(part: Part) -> _Prepared:
            return self._prepared(read_part(file, part))

        # Meanwhile the tokenizer of this thread only decodes.
        with ThreadPoolExecutor(1) as thread:
            coming = deque[tuple[Part, Future[_Prepared]]]()
            for part in [*parts, None]:
                if part:
                    coming.append((part, thread.submit(prepare, part)))
                if coming and (len(coming) > 1 or part is None):
                    ready, prepared = coming.popleft()
                    self._answer(ready, prepared.result(), answers)
                    yield ready

    def _answer(self, part: Part, prepared: "_Prepared", answers: Answers) -> None:
        questions, rows = prepared.questions, self._rows(prepared)
        known = [
            _right(question, row)
            for question, row in zip(questions, rows, strict=True)
            if question.answer != UNANSWERED and "too_long" not in row
        ]
        ties = sum("tied" in row for row in rows)
        unread = sum("too_long" in row for row in rows)
        tally = Tally(len(rows), len(known), math.fsum(known), ties, unread)
        answers.write(part, rows, tally)


def _right(question: Example, row: dict[str, Any]) -> float:
    """Return what an answered question adds to the number of right ones."""
    if question.open:
        return exact_match(row["text"], question.choices[0])
    top = row.get("tied", [row["index"]])
    return (question.answer in top) / len(top)


def question_tokens(questions: Sequence[Example], tokenizer: Any) -> "TokenTable":
    """Tokenize what a student reads of questions, at any length: no rationale and no answer.

    Raises:
        UserError: the tokenizer returns no tokens for a choice.
    """
    from knife.data.tokenizing import tokenize
    from knife.data.tokens import UNBOUNDED

    bare = [replace(q, rationale=None, more_rationales=(), answer=0) for q in questions]
    tokens, _ = tokenize(bare, tokenizer, UNBOUNDED)
    return tokens


def too_long(tokens: "TokenTable", settings: "ModelSettings", room: "Room | None") -> list[str]:
    """Return, for each question, why the student cannot read it, or "".

    `room` is the student's room for an answer; None: enough.
    """
    explains = settings.method == "explain_then_answer"
    # Few-shot demonstrations and a rationale before the answer need positions too.
    written = settings.answer_tokens + 1 if explains or settings.open else 0
    reasons = []
    lengths_of_choices = iter(tokens.choice_lengths.tolist())
    counts = tokens.choice_counts.tolist()
    for length, count in zip(tokens.input_lengths.tolist(), counts, strict=True):
        reason, answer = "", max(islice(lengths_of_choices, count), default=0)
        whole = written + answer
        if room and room.with_input:
            whole += max(length, settings.preamble_tokens)
        if length > settings.max_tokens:
            reason = (
                f"question and choices are {length:,} tokens long, but the student was trained "
                f"for at most {settings.max_tokens} (data.max_tokens)"
            )
        elif room and whole > room.tokens:
            what = (
                "with demonstrations and generated text, question and choices are"
                if room.with_input
                else "with generated text, the longest choice is"
            )
            reason = (
                f"{what} {whole:,} tokens long, but the student has positions for {room.tokens}"
            )
        reasons.append(reason)
    return reasons


def _no_row(question: Example, reason: str) -> dict[str, Any]:
    """Return the row of a question that is not answered."""
    if question.open:
        return {"id": question.id, "text": None, "too_long": reason}
    fields = ("choice", "index", "probabilities")
    return {"id": question.id, **dict.fromkeys(fields), "too_long": reason}


def line(row: dict[str, Any]) -> str:
    """Return a row as JSON."""
    return strict_json.dumps(row, ensure_ascii=False)


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"--output: {path} cannot be written: {error.strerror}")
