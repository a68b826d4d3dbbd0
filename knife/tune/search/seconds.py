"""How long each trial of an experiment has run, over all starts."""

import json
import threading
import time
from contextlib import suppress
from pathlib import Path

from knife.core import strict_json
from knife.core.atomic import write_text

_NAME = "seconds.json"


class Seconds:
    """Counts run time, and saves it about every second so that a kill does not lose it.

    Args:
        folder: the experiment's folder, with the counts of earlier starts.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._counted = seconds_by_trial(folder)
        self._since: dict[str, float] = {}
        self._saved = 0.0
        # On an interrupt the main thread saves while Ray Tune's thread may still be saving.
        self._lock = threading.Lock()

    def started(self, key: str) -> None:
        """Start counting a trial that starts or restarts."""
        self.ended(key)
        self._since[key] = time.monotonic()

    def ended(self, key: str) -> None:
        """Stop counting a trial."""
        if key in self._since:
            worked = time.monotonic() - self._since.pop(key)
            self._counted[key] = self._counted.get(key, 0.0) + worked

    def save(self, *, at_most_every: float = 0.0) -> None:
        """Write the counts to disk, including those of running trials."""
        now = time.monotonic()
        if now - self._saved < at_most_every:
            return
        self._saved = now
        found = dict(self._counted)
        for key, since in dict(self._since).items():
            found[key] = found.get(key, 0.0) + now - since
        with self._lock:
            write_text(self._path, strict_json.dumps(found))


def seconds_by_trial(folder: Path) -> dict[str, float]:
    """Read the seconds counted in an experiment's folder, by trial key."""
    with suppress(FileNotFoundError):
        return {key: float(s) for key, s in json.loads((folder / _NAME).read_text()).items()}
    return {}
