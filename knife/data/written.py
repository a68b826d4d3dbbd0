"""Where the rationales of a folder come from, if a language model wrote them.

FOLDER/written/record.json   what was asked, of which model, and what became of the answers
FOLDER/written/answers/      every answer as it came
FOLDER/written/rejected.jsonl   rationales that are not used, each with the reason
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knife.core.errors import UserError

FOLDER = "written"
RECORD = "record.json"
ANSWERS = "answers"
REJECTED = "rejected.jsonl"
LICENCE = (
    "the terms of a model's provider may restrict what its texts may be used for, such as the "
    "training of other models"
)


def read_written(source: str) -> dict[str, Any] | None:
    """Return the record of a folder whose rationales a language model wrote, or None. `changed`
    names the files that are not as they were written.

    Raises:
        UserError: the record is damaged.
    """
    folder = Path(source).expanduser()
    path = folder / FOLDER / RECORD
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = record["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"data.source: {path} is damaged ({type(error).__name__}): run the command that wrote "
            f"{folder} again, which asks for nothing twice, or remove {path.parent}"
        ) from None
    changed = [name for name, digest in files.items() if file_digest(folder / name) != digest]
    return record | {"changed": changed}


def file_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file; None if there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def written_notes(record: Mapping[str, Any]) -> list[str]:
    """Return what a user should know about rationales that a language model wrote."""
    notes = [
        f"rationales of {split}: {words_on(record, counts)}"
        for split, counts in record["splits"].items()
    ]
    if record["changed"]:
        notes.append(
            f"{', '.join(record['changed'])}: not as the language model's rationales were written "
            "there: what the record says of them may be wrong"
        )
    return notes


def words_on(record: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    """Say who wrote the rationales of a split, how many, and what became of the others."""
    sight = "with" if record["given"] == "answer" else "without"
    said = (
        f"{counts['written']:,} of {counts['examples']:,} were written by "
        f"{by(record)} {sight} sight of the answer, {record['last'][:10]}"
    )
    if counts["texts"] > counts["written"]:
        said += f"; {counts['texts']:,} texts in all"
    if counts["had"]:
        said += f"; {counts['had']:,} were there before"
        if record["before"]:
            said += f", some of them written by {by(record['before'])}"
    if counts["dropped"]:
        reasons = (f"{reason} {number:,}" for reason, number in counts["dropped"].items())
        said += f"; texts not used: {', '.join(reasons)}"
    if counts["unanswered"]:
        said += f"; {counts['unanswered']:,} questions are not answered yet"
    return said


def by(record: Mapping[str, Any]) -> str:
    """Name the model, and where it ran."""
    return f"{record['model']} ({record['address'] or 'run here'})"
