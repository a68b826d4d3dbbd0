"""`knife sync`: send MLflow what it has missed of a store's runs and sweeps."""

from pathlib import Path

from knife.core.errors import UserError
from knife.store.store import store_root
from knife.track.outbox import FOLDER, left
from knife.track.settings import mlflow_settings


def sync(store: Path | str) -> tuple[list[str], list[str], list[str]]:
    """Send everything in the outboxes of a store.

    Returns:
        Lines that say what was sent; what MLflow lacks, because it does not answer (this is kept)
        or refuses it; and what the user has to fix first, which is kept too.

    Raises:
        UserError: there is no store.
    """
    root = store_root(store)
    if not (root / "locks").is_dir() and not (root / FOLDER).is_dir():
        raise UserError(
            f"--store: {store} is no store of runs; give one (knife sync --store FOLDER)"
        )
    if not left(root):
        return [f"there is nothing to send from {store}"], [], []
    # MLflow takes seconds to import.
    with mlflow_settings():
        from knife.track.resend import resend

    found = resend(root)
    lines = []
    for head, runs in found.sent:
        lines.append(f"{head.name}, to the experiment {head.experiment!r} at {head.uri}:")
        lines += [f"  {name}: {_words(counts) or 'nothing new'}" for name, counts in runs]
    lines += found.mended
    lines += [f"{name}: a process that is at work holds it and sends it" for name in found.held]
    kept = found.kept
    if kept:
        kept = [*kept, f"it is kept in {root / FOLDER}: the same command sends it later"]
    return lines, [*found.refused, *kept], found.faults


def _words(counts: dict[str, int]) -> str:
    return ", ".join(
        f"{number:,} {what if number > 1 else what.removesuffix('s')}"
        for what, number in counts.items()
        if number
    )
