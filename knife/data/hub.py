"""Data sets of the Hugging Face hub: known sources, and any other by a map of its columns.

None of their code ever runs: the library loads tables only.
"""

import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from knife.compat.datasets import offline
from knife.config.columns import Columns
from knife.core.errors import UserError
from knife.data.example import Splits
from knife.data.examples import Examples, explained_count
from knife.data.folder import SPLITS
from knife.data.hub_rows import tidy
from knife.data.jsonl import FOLDER_FORMAT, read_rows
from knife.data.known import JOINED, KNOWN, PREFIX, Known, place_of
from knife.data.tables.answers import unanswered
from knife.data.tables.columns import missing_columns
from knife.data.tables.table import Table, table_of

SECONDS_TO_ANSWER = 5
_COMMIT = r"[0-9a-f]{40}"


def load_hub(
    source: str,
    columns: Columns | None = None,
    faulty: float | None = None,
    cut: str | None = None,
) -> Splits:
    """Load a known source, or `hub:OWNER/NAME[@REVISION][:CONFIG]`, from the hub or its cache.

    What is not given of the columns is found out from train; without any, a known source has its
    own map, and its rows that cannot be examples are left out. A split that the hub lacks, or whose
    answers it hides, is returned empty. Notes report all of this. `cut` is the column of the
    question that may be cut.

    Raises:
        UserError: neither hub nor cache has the data, or they have errors in columns or rows.
    """
    known = None if columns else KNOWN.get(source)
    tables = _tables(source)
    columns = columns or (Columns(**known.columns) if known else None)
    notes = [f"{source} {known.note}"] if known and known.note else []
    joined = _rationales(source, known)
    found = {
        split: next((name for name in names if name in tables), None)
        for split, names in SPLITS.items()
    }
    examples, ids = dict[str, Examples](), dict[str, str]()
    for split, name in found.items():
        if name is None:
            continue
        place, table = f"{source} {split if known else name}", table_of(tables[name])
        if known:
            table = _prepared(source, known, table, joined)
        if split != "train" and columns and _hides_answers(table, columns):
            notes.append(f"{place} is not used: its answers are hidden")
            continue
        prefix = "" if split == "train" else f"{split}-"
        try:
            read = read_rows(table, columns, place, 1.0 if known else faulty, prefix, ids, cut)
        except UserError as error:
            if not known or split == "train":
                raise
            notes.append(f"{place} is not used: {error.errors[0]}")
            continue
        examples[split] = read.examples
        ids |= dict.fromkeys(read.examples.values("id"), split)
        columns = read.columns
        notes += read.notes
        if known and known.rationales_of and split == "train":
            explained, total = explained_count(read.examples), len(read.examples)
            notes.append(
                f"{place}: {explained:,} of {total:,} examples have a rationale, taken from "
                f"{known.rationales_of.repository} by id"
            )
    if unread := [name for name in tables if name not in found.values()]:
        notes.append(f"{source}: splits that are not read: {', '.join(unread)}")
    none = Examples.of([])
    train, dev, test = (examples.get(split, none) for split in SPLITS)
    return Splits(train, dev, test, notes)


def train_table(source: str) -> tuple[Table, Columns | None]:
    """Return the table of train of a source of the hub, and its map if it is a known one.

    Raises:
        UserError: as `load_hub` does.
    """
    table, known = table_of(_tables(source)["train"]), KNOWN.get(source)
    if not known:
        return table, None
    table = _prepared(source, known, table, _rationales(source, known))
    return table, Columns(**known.columns)


def _tables(source: str) -> Mapping[str, Any]:
    """Return the tables of a source by the hub's split name, `train` among them."""
    place = place_of(source)
    if place is None:
        raise UserError(
            f"data.source: must be {PREFIX}OWNER/NAME, with @REVISION and then :CONFIG if you "
            f"like, but got {source!r}"
        )
    tables = _download(source, place)
    if "train" not in tables:
        raise UserError(f"data.source: {source} has no split train, but {', '.join(tables)}")
    return tables


def _rationales(source: str, known: Known | None) -> dict[Any, Any]:
    """Return the rationales that a known source takes from another data set, by id; of several with
    one id, the first that says anything."""
    found = dict[Any, Any]()
    if not known or not (other := known.rationales_of):
        return found
    for split in _download(source, other).values():
        for row in _prepared(source, other, table_of(split)).rows:
            identity, rationale = (row[other.columns[key]] for key in ("id", "rationale"))
            found[identity] = found.get(identity) or rationale
    return found


def _prepared(
    source: str, known: Known, table: Table, joined: Mapping[Any, Any] | None = None
) -> Table:
    """Return a known source's table with the columns that its map reads; `joined` are the
    rationales, by id, that it takes from another data set."""
    changed = f"data.source: {source!r}: {known.repository} has changed on the hub"
    instead = f"use a folder of JSON Lines: data.source=/path/to/folder ({FOLDER_FORMAT})"
    rows = [tidy(dict(row)) for row in table.rows]
    try:
        if known.rationales_of:
            rows = [row | {JOINED: (joined or {}).get(row[known.columns["id"]])} for row in rows]
        if known.prepare:
            rows = [known.prepare(row) for row in rows]
    except KeyError as error:
        raise UserError(f"{changed}: it has no column {error.args[0]!r}; {instead}") from error
    names, columns = list(rows[0]) if rows else table.names, Columns(**known.columns)
    if errors := missing_columns(columns, names, source):
        raise UserError(f"{changed}: {errors[0]}; {instead}")
    # Nobody expects the others to be read.
    return Table([name for name in names if name in columns.read], rows, table.classes)


def _hides_answers(table: Table, columns: Columns) -> bool:
    # Any other choice: -1 then counts as unknown.
    return all(unanswered(row[columns.answer or ""], [""]) for row in table.rows)


def _download(name: str, place: Known) -> Mapping[str, Any]:
    """Return a data set's tables by the hub's split name; `name` is how the user calls it."""
    import datasets
    import huggingface_hub

    if Path(place.repository).is_dir():
        raise UserError(
            f"data.source: {name!r}: there is a folder {place.repository} here, which would be "
            f"read instead of the hub's: start elsewhere, or give ./{place.repository}"
        )
    # If the hub is unreachable, the library retries for half a minute or more.
    reached = _answers(huggingface_hub.constants.ENDPOINT)
    try:
        with nullcontext() if reached else offline():
            tables: Mapping[str, Any] = datasets.load_dataset(
                place.repository, place.config, revision=place.revision
            )
    # Network, hub, cache and file format each raise their own exceptions, from four libraries.
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"data.source: {name!r} could not be loaded from the hub ({place.repository}): "
            f"{type(error).__name__}: {reason}. Without the hub, use a folder of JSON Lines: "
            f"data.source=/path/to/folder ({FOLDER_FORMAT})"
        ) from error
    _refuse_other_revision(name, place, tables)
    return tables


def _refuse_other_revision(name: str, place: Known, tables: Mapping[str, Any]) -> None:
    """Refuse what the library returns from its cache without the hub whatever the revision.

    Raises:
        UserError: it is of another commit than the one that was asked for.
    """
    if not re.fullmatch(_COMMIT, place.revision or ""):
        return
    for table in tables.values():
        for file in table.cache_files:
            found = Path(file["filename"]).parent.name
            if re.fullmatch(_COMMIT, found) and found != place.revision:
                raise UserError(
                    f"data.source: {name!r}: the library returns revision {found} of "
                    f"{place.repository} from its cache, not {place.revision}: try again when the "
                    "hub can be reached, or ask for the one in the cache"
                )


def _answers(endpoint: str) -> bool:
    """Whether the hub answers within seconds, using its own client, which knows proxies and
    certificates."""
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(endpoint, timeout=SECONDS_TO_ANSWER)
    # The client's HTTP library, and with it the exceptions, differs between versions.
    except Exception:
        return False
    return True
