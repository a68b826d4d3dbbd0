"""`knife sync`: send MLflow what it has missed of a store's runs and sweeps."""

from pathlib import Path

from knife.core.errors import UserError
from knife.store.store import Store, store_root
from knife.track.destination import unsent
from knife.track.settings import mlflow_settings


def sync(store: Path | str) -> tuple[list[str], list[str], list[str]]:
    """Send what MLflow lacks of the runs and sweeps in a store.

    Returns:
        Lines that say what was sent; what MLflow lacks, because it does not answer or refuses it;
        and what the user has to fix first.

    Raises:
        UserError: there is no store.
    """
    root = store_root(store)
    if not (root / "locks").is_dir():
        raise UserError(
            f"--store: {store} is not a store of runs; give one (knife sync --store FOLDER)"
        )
    old = root / "outbox"
    earlier = (
        [
            f"{old} has messages that an earlier version did not send; start those runs again, "
            "which sends everything without retraining, and remove the folder"
        ]
        if any(old.glob("*.jsonl"))
        else []
    )
    if next(unsent(root), None) is None:
        return [f"there is nothing to send from {store}"], earlier, []
    # MLflow takes seconds to import.
    with mlflow_settings():
        from knife.track.catch_up import catch_up
    from knife.tune.progress.sweep_tree import TREES

    found = catch_up(Store(store, write=False), TREES)
    lines = []
    for name, destination, runs in found.sent:
        lines.append(f"{name}, to the experiment {destination.experiment!r} at {destination.uri}:")
        lines += [f"  {run}: {_words(counts) or 'nothing new'}" for run, counts in runs]
    lines += found.mended
    lines += [f"{name}: a process is working on it and sends it" for name in found.held]
    kept = found.kept
    if kept:
        kept = [*kept, "the store has all of it: the same command sends it later"]
    return lines, [*found.refused, *kept, *earlier], found.errors


def _words(counts: dict[str, int]) -> str:
    return ", ".join(
        f"{number:,} {what if number > 1 else what.removesuffix('s')}"
        for what, number in counts.items()
        if number
    )
