"""The history of a phase's trials over all starts: what happened, and how long it took.

    history.jsonl   a line for each start, report, early end and failure of a trial
    seconds.json    how long the search and each trial have run, written about every second

Lines refer to trials by `trial_key`.
"""

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from knife.core import strict_json
from knife.core.atomic import write_json

_LINES, _SECONDS = "history.jsonl", "seconds.json"


class History:
    """Writes what happens to trials, at once, so that a kill loses nothing."""

    def __init__(self, folder: Path) -> None:
        """Continue the history in a phase's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / _LINES
        if self._path.is_file():
            # A kill may have truncated the last line.
            with self._path.open("r+b") as file:
                file.truncate(file.read().rfind(b"\n") + 1)

    def started(self, trial: str, params: dict[str, Any]) -> None:
        """Note that a trial of these params starts."""
        self._add({"trial": trial, "params": params})

    def reported(self, trial: str, report: dict[str, Any]) -> None:
        """Note a trial's report."""
        self._add({"trial": trial, "report": report})

    def pruned(self, trial: str) -> None:
        """Note that a scheduler has ended a trial."""
        self._add({"trial": trial, "pruned": True})

    def failed(self, trial: str, error: str) -> None:
        """Note why a trial has failed."""
        self._add({"trial": trial, "failed": error})

    def _add(self, row: dict[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(strict_json.dumps(row) + "\n")


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a phase's history."""
    path = folder / _LINES
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class TimeSpent:
    """Counts how long a search and its trials run, in addition to what earlier starts took."""

    def __init__(self, folder: Path) -> None:
        """Continue the counts in a phase's folder."""
        self._path = folder / _SECONDS
        self._before, self._counted = read_seconds(folder)
        self._begin = self._saved = time.monotonic()
        self._since: dict[str, float] = {}

    def started(self, trial: str) -> None:
        """Start counting a trial that starts."""
        self._since[trial] = time.monotonic()

    def ended(self, trial: str) -> None:
        """Stop counting a trial."""
        if trial in self._since:
            worked = time.monotonic() - self._since.pop(trial)
            self._counted[trial] = self._counted.get(trial, 0.0) + worked

    def seconds(self) -> tuple[float, dict[str, float]]:
        """Return the seconds of the search and of each trial so far."""
        now, trials = time.monotonic(), dict(self._counted)
        for trial, since in dict(self._since).items():
            trials[trial] = trials.get(trial, 0.0) + now - since
        return self._before + now - self._begin, trials

    def save(self, *, at_most_every: float = 0.0) -> None:
        """Write the counts to disk."""
        now = time.monotonic()
        if now - self._saved < at_most_every:
            return
        self._saved = now
        search, trials = self.seconds()
        write_json(self._path, {"search": search, "trials": trials})


def read_seconds(folder: Path) -> tuple[float, dict[str, float]]:
    """Read the seconds of a search and of each of its trials; 0 and none before it starts."""
    with suppress(FileNotFoundError):
        values = json.loads((folder / _SECONDS).read_text())
        return values["search"], values["trials"]
    return 0.0, {}
