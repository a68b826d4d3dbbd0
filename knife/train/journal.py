"""The journal of a stage: one line a measured moment, the source of progress and tracking."""

import json
import time
from pathlib import Path
from typing import Any

from knife import strict_json

NAME = "journal.jsonl"


class Journal:
    """Writes `{"step", "epoch", "time", "metrics"}` lines; `time` is in Unix seconds."""

    def __init__(self, folder: Path, from_step: int = 0) -> None:
        """Go on after `from_step`: lines of later steps are of a try that was cut off."""
        path = folder / NAME
        kept = []
        if path.is_file():
            for line in path.read_text().splitlines(keepends=True):
                if line.endswith("\n") and json.loads(line)["step"] <= from_step:
                    kept.append(line)
            unfinished = path.with_suffix(".tmp")
            unfinished.write_text("".join(kept) if from_step else "")
            unfinished.replace(path)
        self._file = path.open("a")

    def add(self, step: int, epoch: float | None, metrics: dict[str, float]) -> None:
        """Add a line; it is on its way to readers when this returns. Who trains has an epoch."""
        row: dict[str, Any] = {"step": step, "time": time.time(), "metrics": metrics}
        if epoch is not None:
            row["epoch"] = round(epoch, 4)
        self._write(row)

    def note(self, step: int, text: str) -> None:
        """Add a line for people: what happened before this step."""
        self._write({"step": step, "time": time.time(), "metrics": {}, "note": text})

    def _write(self, row: dict[str, Any]) -> None:
        self._file.write(strict_json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
