"""Examples as JSON Lines: one object a line, every fault of a file at once."""

import codecs
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from knife import strict_json
from knife.data.example import Example
from knife.errors import UserError, raise_faults

FORMAT = (
    '{"id": "…", "question": "…", "choices": ["…", "…"], '
    '"answer": text or index, "rationale": text or null}'
)
FOLDER_FORMAT = (
    "a folder holds train.jsonl and, where there are, dev.jsonl and test.jsonl, with lines such "
    f"as {FORMAT}"
)
SHOWN_FAULTS = 20
# The answer of a question whose answer is not known.
UNANSWERED = -1
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
Parse = Callable[[object], tuple[Example | None, list[str]]]


def read_examples(path: Path) -> list[Example]:
    """Read one JSON Lines file of examples, in the file's order.

    A line holds `id` (text or integer, kept as text), `question`, `choices`, `answer` (one of the
    choices, or its index from 0) and, where there is one, `rationale`. Without `choices` it is an
    open question and its answer a text. Other fields are ignored, and so are blank lines, CRLF
    line ends and a byte-order mark. An empty rationale is none.

    Raises:
        UserError: with every fault of the file as `file:line: message`, up to `SHOWN_FAULTS` and
            the number of those left unsaid; or where the file cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    refuse_utf16(path, data)
    examples: list[Example] = []
    faults: list[str] = []
    first_line: dict[str, int] = {}
    first_kind: dict[bool, int] = {}
    lines = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
    for number, identity, example, found in parse_lines(lines, 1, parse_example):
        if example is not None:
            examples.append(example)
            first_kind.setdefault(example.open, number)
        first = first_line.setdefault(identity, number) if identity else number
        if first != number:
            found = [*found, stands_already(identity, first)]
        faults += [f"{path}:{number}: {fault}" for fault in found]
    if not examples and not faults:
        faults.append(no_examples(path))
    raise_faults([*cap(faults), *mixed(path, first_kind)])
    return examples


def mixed(path: Path, first_line: dict[bool, int]) -> list[str]:
    """The fault of a file with open questions and questions with choices, by the first line of
    each kind (whether it is open)."""
    if len(first_line) < 2:
        return []
    return [
        f"{path}:{first_line[True]}: choices: is missing, but line {first_line[False]} has some; "
        "open questions (without choices) and others cannot be mixed: add the choices, or make two "
        "data sets"
    ]


def refuse_utf16(path: Path, data: bytes) -> None:
    """Refuse a file that begins as UTF-16 does.

    Raises:
        UserError: `data`, the file's first bytes, has such a mark.
    """
    if data.startswith(UTF16_MARKS):
        raise UserError(f"{path}:1: the file is UTF-16, but must be UTF-8: save it as UTF-8")


def parse_lines(
    lines: Iterable[bytes], number: int, parse: Parse
) -> Iterator[tuple[int, str, Example | None, list[str]]]:
    """Each line that is not blank: its number, its id, its example, and what is wrong with it.

    The id is "" and the example None where a fault keeps them from being read; `number` is that of
    the first line. Lines are bytes: text may hold other line separators, and a byte that is not
    UTF-8 spoils its own line alone.
    """
    for at, line in enumerate(lines, start=number):
        if not line.strip():
            continue
        record, faults = _decode(line)
        example = None
        if not faults:
            example, faults = parse(record)
        yield at, _identity(record, []) if isinstance(record, dict) else "", example, faults


def stands_already(identity: str, line: int) -> str:
    """The fault of an id that an earlier line has."""
    return f"id: {show(identity)} stands in line {line} already"


def no_examples(path: Path) -> str:
    """The fault of an empty file."""
    return f"{path}: has no examples; expected one JSON object a line: {FORMAT}"


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write `examples` as JSON Lines, so that `read_examples` gives the same examples back.

    Raises:
        OSError: where the file cannot be written.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples:
            record = {
                "id": example.id,
                "question": example.question,
                "choices": None if example.open else example.choices,
                "answer": example.choices[example.answer],
                "rationale": example.rationale,
            }
            file.write(strict_json.dumps(record, ensure_ascii=False) + "\n")


def parse_example(record: object) -> tuple[Example | None, list[str]]:
    """One decoded JSON value as an example, or None and every fault of it (`field: message`)."""
    if not isinstance(record, dict):
        return None, [f"must be a JSON object {FORMAT}, but got {show(record)}"]
    faults: list[str] = []
    identity = _identity(record, faults)
    question = _text(record, "question", faults)
    answer = 0
    if record.get("choices") is None:
        choices = [_text(record, "answer", faults, kinds="text where there are no choices")]
    else:
        choices = _choices(record, faults)
        answer = _answer(record, choices, faults)
    rationale = record.get("rationale")
    if rationale is not None:
        rationale = _text(record, "rationale", faults, may_be_empty=True)
    if faults:
        return None, faults
    rationale = rationale if rationale and rationale.strip() else None
    return Example(identity, question, tuple(choices), answer, rationale), []


def parse_question(record: object) -> tuple[Example | None, list[str]]:
    """As `parse_example`, but `answer` may be missing or null too: then it is `UNANSWERED`."""
    if not isinstance(record, dict) or record.get("answer") is not None:
        return parse_example(record)
    known = 0 if record.get("choices") is not None else "unknown"
    example, faults = parse_example({**record, "answer": known})
    if example is None:
        return None, faults
    choices = () if example.open else example.choices
    return replace(example, answer=UNANSWERED, choices=choices), faults


def show(value: object) -> str:
    """A value as JSON for a message, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 160 else f"{text[:160]}…"


def cap(faults: list[str]) -> list[str]:
    """The first `SHOWN_FAULTS` faults, and a line that counts the others."""
    more = len(faults) - SHOWN_FAULTS
    return faults if more <= 0 else [*faults[:SHOWN_FAULTS], f"… and {more} more"]


def _decode(line: bytes) -> tuple[object, list[str]]:
    """The JSON value of a line, or None and what is wrong with the line."""
    try:
        return strict_json.loads(line.decode()), []
    except UnicodeDecodeError as error:
        bad = line[error.start]
        return None, [f"not UTF-8: byte 0x{bad:02x} at byte {error.start + 1} of the line"]
    except json.JSONDecodeError as error:
        return None, [f"broken JSON at column {error.colno}: {error.msg}"]
    except (ValueError, RecursionError) as error:
        return None, [f"broken JSON: {error}"]


def _identity(record: dict[str, Any], faults: list[str]) -> str:
    value = record.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(record, "id", faults, kinds="text or an integer")


def _text(
    record: dict[str, Any],
    field: str,
    faults: list[str],
    *,
    kinds: str = "text",
    may_be_empty: bool = False,
) -> str:
    """The text of a field; "" where it is at fault, and then the fault is added to `faults`."""
    if field not in record:
        faults.append(f"{field}: is missing")
        return ""
    value = record[field]
    if not isinstance(value, str):
        faults.append(f"{field}: must be {kinds}, but got {show(value)}")
    elif not may_be_empty and not value.strip():
        faults.append(f"{field}: is empty")
    elif not _encodable(value):
        faults.append(f"{field}: holds half of a surrogate pair: {show(value)}")
    else:
        return value
    return ""


def _choices(record: dict[str, Any], faults: list[str]) -> list[str]:
    """The choices; [] where they are at fault."""
    value = record["choices"]
    if not isinstance(value, list) or not all(isinstance(choice, str) for choice in value):
        faults.append(f"choices: must be a list of texts, but got {show(value)}")
    elif len(value) < 2:
        faults.append(f"choices: must be two or more, but got {show(value)}")
    elif not all(choice.strip() for choice in value):
        faults.append(f"choices: one is empty: {show(value)}")
    elif not all(map(_encodable, value)):
        faults.append(f"choices: one holds half of a surrogate pair: {show(value)}")
    elif len({choice.strip() for choice in value}) < len(value):
        faults.append(f"choices: two are equal: {show(value)}")
    else:
        return value
    return []


def _answer(record: dict[str, Any], choices: list[str], faults: list[str]) -> int:
    """The index of the answer. Where the choices are at fault, only its type is checked."""
    value = record.get("answer")
    if "answer" not in record:
        faults.append("answer: is missing")
    elif isinstance(value, bool) or not isinstance(value, str | int):
        faults.append(f"answer: must be one of the choices or its index, but got {show(value)}")
    elif not choices:
        pass
    elif isinstance(value, str):
        if value in choices:
            return choices.index(value)
        faults.append(f"answer: {show(value)} is not among the choices {show(choices)}")
    elif 0 <= value < len(choices):
        return value
    else:
        last = len(choices) - 1
        faults.append(f"answer: index must be from 0 to {last}, but got {value}: {show(choices)}")
    return 0


def _encodable(text: str) -> bool:
    """JSON can spell half of a surrogate pair (`\\ud800`), which no tokenizer or file takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
