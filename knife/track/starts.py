"""How a run or a sweep ended, by the last start in its record, and when its stages did."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
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


def finished_at(store: Store, kind: str, key: str) -> float | None:
    """Return when a stage was finished; None if the store lacks its artifact."""
    with suppress(FileNotFoundError):
        return _finished_at(store, kind, key)
    return None


# Trees are made again every second. What is published under a key never changes, so it is asked
# for once; an error is not kept.
@lru_cache(maxsize=4096)
def _finished_at(store: Store, kind: str, key: str) -> float:
    if not store.has(kind, key):
        raise FileNotFoundError
    return last_row_time(store, [(kind, key)])
