"""How a run or a sweep ended, by the last start in its record."""

from collections.abc import Callable, Iterable
from typing import Any

from knife.store.store import Store
from knife.track.node import Status
from knife.train.journal import Position, read_stage


def status_of(
    starts: list[dict[str, Any]], latest: Callable[[], float], *, alive: bool
) -> tuple[Status, float | None]:
    """Return the status of a run, and when it ended (Unix seconds; None while it runs).

    A start without an end is running if its process is `alive`. Otherwise that process was killed,
    and the run ended with its `latest` event.
    """
    last = starts[-1]
    ended: float | None = last["ended"]
    if ended is None:
        return ("RUNNING", None) if alive else ("KILLED", max(last["time"], latest()))
    if last["status"] == "finished":
        return "FINISHED", ended
    return ("KILLED" if last["status"] == "stopped" else "FAILED"), ended


def last_row_time(store: Store, stages: Iterable[tuple[str, str]]) -> float:
    """Return when the newest row in the journals of these stages was written; 0.0 without rows."""
    times = [0.0]
    for kind, key in stages:
        rows, _ = read_stage(store, kind, key, Position())
        times += [rows[-1]["time"]] if rows else []
    return max(times)
