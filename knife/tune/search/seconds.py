"""How long each trial of an experiment was at work, all starts together."""

import json
import threading
import time
from contextlib import suppress
from pathlib import Path

from knife.core import strict_json
from knife.core.atomic import replacing

_NAME = "seconds.json"


class Seconds:
    """Counts, and keeps on disk about every second what a kill would forget.

    Args:
        folder: the experiment's folder, with what earlier starts have counted.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._counted = seconds_by_trial(folder)
        self._since: dict[str, float] = {}
        self._saved = 0.0
        # Who interrupts a start saves while Ray Tune's thread is still at it.
        self._lock = threading.Lock()

    def started(self, key: str) -> None:
        """A trial begins, or begins again."""
        self.ended(key)
        self._since[key] = time.monotonic()

    def ended(self, key: str) -> None:
        """A trial is no longer at work."""
        if key in self._since:
            worked = time.monotonic() - self._since.pop(key)
            self._counted[key] = self._counted.get(key, 0.0) + worked

    def save(self, *, at_most_every: float = 0.0) -> None:
        """Write what is counted, trials at work included."""
        now = time.monotonic()
        if now - self._saved < at_most_every:
            return
        self._saved = now
        found = dict(self._counted)
        for key, since in dict(self._since).items():
            found[key] = found.get(key, 0.0) + now - since
        with self._lock, replacing(self._path) as unfinished:
            unfinished.write_text(strict_json.dumps(found))


def seconds_by_trial(folder: Path) -> dict[str, float]:
    """What was counted in an experiment's folder, by the trial's key."""
    with suppress(FileNotFoundError):
        return {key: float(s) for key, s in json.loads((folder / _NAME).read_text()).items()}
    return {}
