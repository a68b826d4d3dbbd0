"""Data given from Python, kept as files that every start of a run, and every host, can read."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from knife.core.errors import UserError
from knife.core.values import as_json
from knife.data.folder import SPLITS

_NAMES = {name: split for split, names in SPLITS.items() for name in names}


def write_given(source: object, folder: Path) -> Path:
    """Write data into a folder, under a name made from their content, and return their path.

    Data are rows as mappings, a `datasets.Dataset`, a pandas frame, or a mapping of splits, such as
    a `datasets.DatasetDict`, to these.

    Raises:
        UserError: they are something else, or cannot be written.
    """
    splits = {"train": source}
    if isinstance(source, Mapping):
        unknown = [str(name) for name in source if name not in _NAMES]
        if unknown:
            raise UserError(
                f"data.source: {', '.join(unknown)}: must be named train, dev (or validation) or "
                "test"
            )
        splits = {_NAMES[name]: part for name, part in source.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".") as name:
        written = [_write(part, Path(name) / split) for split, part in splits.items()]
        hashed = hashlib.sha256()
        for path in sorted(written):
            hashed.update(path.name.encode() + path.read_bytes())
        place = folder / hashed.hexdigest()[:16]
        place.mkdir(exist_ok=True)
        for path in written:
            path.replace(place / path.name)
    return place if isinstance(source, Mapping) else place / written[0].name


def _write(rows: Any, path: Path) -> Path:
    """Write the rows of a split; return the file's path."""
    kind = type(rows).__module__.partition(".")[0]
    if kind in ("datasets", "pandas"):
        path = path.with_suffix(".parquet")
        try:
            rows.to_parquet(path, **({"index": False} if kind == "pandas" else {}))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"data.source: cannot be written as Parquet: {error}") from error
        return path
    if isinstance(rows, str) or not isinstance(rows, Iterable):
        raise UserError(
            "data.source: must be a path or a name, rows as mappings, a datasets.Dataset or a "
            f"pandas frame, but got {type(rows).__name__}"
        )
    path = path.with_suffix(".jsonl")
    lines, errors = [], []
    for number, row in enumerate(rows, 1):
        try:
            lines.append(f"{as_json(row)}\n")
        except (TypeError, ValueError) as error:
            errors.append(f"data.source: row {number}: {error}")
    if errors:
        raise UserError(*errors[:20])
    path.write_text("".join(lines), encoding="utf-8")
    return path
