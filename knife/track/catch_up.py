"""Sending MLflow what it lacks of the runs and sweeps that no process is working on."""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from knife.core.errors import UserError
from knife.store.store import Store
from knife.track.address import resolve_kept
from knife.track.connect import AwayError
from knife.track.destination import Destination, unsent
from knife.track.node import RunNode
from knife.track.settings import mlflow_settings
from knife.track.view import View

log = logging.getLogger("knife.track")


class Tree(Protocol):
    """Makes the tree of the run or sweep in a folder; None if an earlier version recorded too
    little."""

    def __call__(self, folder: Path, store: Store, *, alive: bool) -> RunNode | None:
        """Make it; `alive` says whether a process is working on the run or sweep."""


# By the folder of the store that has them: `runs`, `sweeps`.
Trees = Mapping[str, Tree]


@dataclass
class CaughtUp:
    """What was sent, and what was not.

    Attributes:
        sent: for each run or sweep, its name, its destination, and what was sent of each of its
            runs in MLflow (name, counts by kind).
        kept: why something is still unsent, one line each.
        mended: lines about runs that were deleted in MLflow and are there again.
        refused: what MLflow will never accept, one line for each run.
        held: folders that a living process works on and sends itself.
        errors: what the user has to fix, one line each.
    """

    sent: list[tuple[str, Destination, list[tuple[str, Counter[str]]]]] = field(
        default_factory=list
    )
    kept: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def tracking_lock(store: Store, folder: Path) -> FileLock:
    """Return the lock of the process that sends the run or sweep in a folder."""
    name = f"mlflow-{folder.parent.name}-{folder.name}"
    return FileLock(store.root / "locks" / name, thread_local=False)


def catch_up(store: Store, trees: Trees, folders: list[Path] | None = None) -> CaughtUp:
    """Send what MLflow lacks of a store's runs and sweeps, or of those in some folders.

    A run whose process died without recording an end counts as killed at its last event.
    """
    found = CaughtUp()
    away: dict[str, str] = {}
    with mlflow_settings():
        for folder in unsent(store.root) if folders is None else folders:
            tree = trees.get(folder.parent.name)
            destination = Destination.read(folder)
            if tree is None or destination is None or destination.whole:
                continue
            try:
                with tracking_lock(store, folder).acquire(timeout=0):
                    _send(folder, tree, destination, store, found, away)
            except Timeout:
                found.held.append(folder.name)
            except AwayError as error:
                away[destination.uri] = str(error)
                found.kept.append(
                    f"MLflow at {destination.uri} does not answer (run {folder.name!r}): {error}"
                )
            except UserError as error:
                found.errors += error.errors
            except (OSError, ValueError, KeyError) as error:
                found.errors.append(f"{folder} cannot be read whole: {error!r}")
    found.errors = list(dict.fromkeys(found.errors))
    return found


def _send(
    folder: Path,
    tree: Tree,
    destination: Destination,
    store: Store,
    found: CaughtUp,
    away: dict[str, str],
) -> None:
    if destination.uri in away:
        # Ask once, rather than wait for seconds again for each run.
        raise AwayError(away[destination.uri])
    root = tree(folder, store, alive=False)
    if root is None:
        raise UserError(
            f"{folder} was made by an earlier version: start the same run again, which trains "
            "nothing again, and MLflow gets all of it"
        )
    address = resolve_kept(destination.uri, destination.where, store.root)
    view = View(address, store, destination.experiment, known=destination.run_id is not None)
    view.reach()
    whole = view.send(root, last=True)
    run_id = view.run_id((root.key,)) or destination.run_id
    replace(destination, run_id=run_id, whole=whole).write(folder)
    found.sent.append((root.name, destination, view.counts()))
    found.mended += view.mended()
    found.refused += view.refusals()
    found.kept += view.lacking(root)
