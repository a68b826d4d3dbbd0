"""The follower: reads the journals of stages while they run."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Self

from knife.store.store import Store
from knife.train.journal import Position, Row, read_stage

log = logging.getLogger("knife.track")

Stage = tuple[str, str]


class Follower:
    """A thread that reads the journals of registered stages, for displays.

    Args:
        store: the artifact store's folder or url.
        interval: seconds between two polls.
    """

    def __init__(self, store: Path | str, interval: float | None = None) -> None:
        self._store = Store(store, write=False)
        # To poll a bucket takes a request per stage.
        self._interval = interval or max(0.5, self._store.seconds)
        self._lock = threading.Lock()
        self._positions: dict[Stage, Position] = {}
        self._newest: dict[Stage, Row] = {}
        self._metrics: dict[Stage, dict[str, float]] = {}
        self._notes: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="knife-follow", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def follow(self, kind: str, key: str) -> None:
        """Read the stage's journal from its beginning, also if it was finished long ago."""
        with self._lock:
            self._positions[kind, key] = Position()

    def newest(self) -> dict[Stage, Row]:
        """Return the newest row of each stage that has one, by kind and key, with the newest value
        of every metric that the stage has ever recorded."""
        with self._lock:
            return {
                stage: {**row, "metrics": dict(self._metrics[stage])}
                for stage, row in self._newest.items()
            }

    def take_notes(self) -> list[str]:
        """Return the notes for people added since the last call."""
        with self._lock:
            notes, self._notes = self._notes, []
            return notes

    def close(self) -> None:
        """Read the journals one last time and stop."""
        self._stop.set()
        self._thread.join()
        self.poll()

    def poll(self) -> None:
        """Read all journals once, immediately."""
        with self._lock:
            for stage in self._positions:
                try:
                    self._read(stage)
                except OSError as error:
                    # A brief failure of a network file system; the next poll continues.
                    log.debug("journal of %s: %s", stage, error)

    def _read(self, stage: Stage) -> None:
        rows, self._positions[stage] = read_stage(self._store, *stage, self._positions[stage])
        if not rows:
            return
        self._newest[stage] = rows[-1]
        metrics = self._metrics.setdefault(stage, {})
        for row in rows:
            metrics |= row["metrics"]
        self._notes += [f"{stage[0]}: {row['note']}" for row in rows if "note" in row]

    def _loop(self) -> None:
        while not self._stop.wait(self._interval):
            self.poll()
