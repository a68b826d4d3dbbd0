"""Tables for people: the map of their columns, and their examples as JSON Lines."""

from pathlib import Path

import yaml

from knife.config.run import Data
from knife.core.errors import UserError, raise_errors
from knife.core.words import counted
from knife.data.folder import find_files
from knife.data.hub import train_table
from knife.data.jsonl import as_table, write_examples
from knife.data.known import place_of
from knife.data.source import load_whole
from knife.data.tables.columns import map_table
from knife.data.tables.table import is_table


def map_of(data: Data) -> str:
    """Return the map of a source's columns, those of its train, as YAML, with what was guessed as
    comments.

    Raises:
        UserError: the source is none of these, or a column cannot be found or guessed.
    """
    path, shards, known = Path(data.source).expanduser(), list[Path](), None
    if place_of(data.source):
        table, known = train_table(data.source)
    else:
        if path.is_dir():
            found = find_files(path)
            raise_errors(found.errors)
            path, *shards = found.files["train"]
        if not path.is_file():
            raise UserError(
                f"SOURCE: {data.source!r} is neither a file, a folder nor a data set of the hub"
            )
        table = as_table(path, *(shards if is_table(path) else []))
    place = data.source if place_of(data.source) else str(path)
    mapping, notes = map_table(table, data.columns or known, place)
    columns = mapping.columns.model_dump(exclude_none=True)
    for key in ("question", "choices", "rationale"):
        if len(names := columns.get(key, [])) == 1:
            columns[key] = names[0]
    lines = [f"# {note}" for note in [*table.notes, *notes]]
    if mapping.unread:
        lines.append(f"# not read: {', '.join(mapping.unread)}")
    text = yaml.safe_dump(
        {"data": {"source": data.source, "columns": columns}},
        sort_keys=False,
        allow_unicode=True,
    )
    return "".join(f"{line}\n" for line in lines) + text


def convert(data: Data, folder: Path) -> list[str]:
    """Write the splits of a source into a new folder; return lines on what was written.

    Raises:
        UserError: the source has errors, or the folder exists and is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out: {folder} exists already; give a new folder")
    splits = load_whole(data)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for name, examples in splits.parts.items():
            if examples:
                write_examples(folder / f"{name}.jsonl", examples)
                lines.append(f"{folder / name}.jsonl: {counted(len(examples), 'example')}")
    except OSError as error:
        raise UserError(f"--out: {folder} cannot be written: {error.strerror}") from error
    return [*lines, *(f"note: {note}" for note in splits.notes)]
