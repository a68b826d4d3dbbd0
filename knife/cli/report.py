"""`knife report`: the page of a run or a sweep, finished or in progress."""

import json
from pathlib import Path

from knife.core.atomic import write_text
from knife.core.errors import UserError, nearest
from knife.report.run_data import RECORD as RUN
from knife.report.run_page import NAME, run_report
from knife.store.disk import disk_errors
from knife.store.store import Store
from knife.tune.search.about import ABOUT

_KINDS = ("runs", "sweeps")
_MOST_LISTED = 10


def write_report(target: str, store: str, out: Path | None) -> Path:
    """Write the report of a run or a sweep, by default into its own folder; return its path.

    `target` is such a folder, or the name of a run or sweep in the store, which means the newest of
    that name.

    Raises:
        UserError: there is no such run or sweep, or the page cannot be written.
    """
    folder, home = _find(target, store)
    if folder.parent.name == "sweeps":
        from knife.tune.report.report import sweep_report

        text = sweep_report(folder, home)
    else:
        text = run_report(folder, home)
    path = out or folder / NAME
    if path.is_dir():
        path = path / NAME
    if not path.parent.is_dir():
        raise UserError(f"--out: the folder {path.parent} does not exist; create it first")
    with disk_errors(path.parent):
        write_text(path, text)
    return path


def _find(target: str, address: str) -> tuple[Path, Store]:
    """Find the folder of a run or a sweep, and its store."""
    given = Path(target).expanduser().resolve()
    if given.is_dir() and given.parent.name in _KINDS:
        return given, Store(given.parents[1], write=False)
    store = Store(address, write=False)
    found = [folder for kind in _KINDS for folder in store.results(kind)]
    folders = sorted(found, key=lambda folder: folder.stat().st_mtime)
    named = [f for f in folders if f.name == target or _name(f) == target]
    if named:
        return max(named, key=lambda folder: _last_start(folder, store)), store
    if not folders:
        raise UserError(
            f"TARGET: the store {store.address} has no run or sweep; give another with --store"
        )
    names = list(dict.fromkeys(_name(folder) for folder in reversed(folders)))
    listed = ", ".join(names[:_MOST_LISTED]) + (", …" if len(names) > _MOST_LISTED else "")
    raise UserError(
        f"TARGET: the store {store.address} has no run or sweep {target!r}; "
        f"{nearest(target, names)} (newest first: {listed}), or give the folder of one"
    )


def _last_start(folder: Path, store: Store) -> float:
    """Return when a run or a sweep last started; writing a page into its folder does not count."""
    store.recall(folder)
    for record in (folder / RUN, folder / ABOUT):
        if record.is_file() and (starts := json.loads(record.read_text()).get("starts")):
            return float(starts[-1]["time"])
    return folder.stat().st_mtime


def _name(folder: Path) -> str:
    """Return the name in its config; a run's folder has the key after it."""
    return folder.name if folder.parent.name == "sweeps" else folder.name.rpartition("-")[0]
