"""Any data set of the Hugging Face hub, by a map of its columns: `hub:OWNER/NAME`."""

import re

from knife.config.columns import Columns
from knife.core.errors import UserError
from knife.data.example import Splits
from knife.data.folder import SPLITS
from knife.data.hub import download
from knife.data.jsonl import read_rows
from knife.data.tables.answers import unanswered
from knife.data.tables.table import Table, table_of

PREFIX = "hub:"
_ADDRESS = re.compile(r"hub:(?P<name>[^/:@]+/[^/:@]+)(@(?P<revision>[^:]+))?(:(?P<config>.+))?")


def load_hub_table(source: str, columns: Columns | None, faulty: float | None) -> Splits:
    """Load `hub:OWNER/NAME[@REVISION][:CONFIG]`. What is not given of the columns is found out from
    train.

    A split that the hub lacks, or whose answers it hides, is returned empty; notes report both.

    Raises:
        UserError: it cannot be loaded, or has errors in its columns or rows.
    """
    parts = _ADDRESS.fullmatch(source)
    if not parts:
        raise UserError(
            f"data.source: must be {PREFIX}OWNER/NAME, with @REVISION and then :CONFIG if you "
            f"like, but got {source!r}"
        )
    tables = download(source, str(parts["name"]), parts["config"], parts["revision"])
    # The first name that there is, such as `validation` for dev.
    found = {
        split: next((name for name in names if name in tables), None)
        for split, names in SPLITS.items()
    }
    if not found["train"]:
        raise UserError(f"data.source: {source} has no split train, but {', '.join(tables)}")
    splits, notes = Splits([], [], []), list[str]()
    for split, name in found.items():
        if name is None:
            continue
        table, place = table_of(tables[name]), f"{source} {name}"
        if columns and split != "train" and _hides_answers(table, columns):
            notes.append(f"{place} is not used: its answers are hidden")
            continue
        read = read_rows(table, columns, place, faulty, "" if split == "train" else f"{split}-")
        splits.parts[split].extend(read.examples)
        columns = read.columns
        notes += read.notes
    if unread := [name for name in tables if name not in found.values()]:
        notes.append(f"{source}: splits that are not read: {', '.join(unread)}")
    return Splits(splits.train, splits.dev, splits.test, notes)


def _hides_answers(table: Table, columns: Columns) -> bool:
    return all(unanswered(row[columns.answer or ""]) for row in table.rows)
