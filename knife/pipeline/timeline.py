"""Which stages the slots made, and when: the data of a report's chart of slots."""

import time
from pathlib import Path

from knife.core import strict_json
from knife.plan.events import Event, Failed, Made, Pruned, Started
from knife.plan.schedule import Work
from knife.report.slots import SLOTS


class Timeline:
    """Appends a line for each time that a slot made stages, at their end, to a file in the folder
    of a run or a sweep.

    `made` is false if the slot was lost, or the stages failed or were pruned; `begin` and `end`
    are Unix seconds.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SLOTS
        self._begun: dict[Work, tuple[int, float]] = {}

    def add(self, event: Event) -> None:
        """Take an event."""
        match event:
            case Started(work, slot):
                # Again, if its slot was lost.
                self._write(work, made=False)
                self._begun[work] = (slot, time.time())
            case Made(work):
                self._write(work, made=True)
            case Failed(work) | Pruned(work):
                self._write(work, made=False)

    def _write(self, work: Work, *, made: bool) -> None:
        if work not in self._begun:
            return
        slot, begin = self._begun.pop(work)
        row = {
            "slot": slot,
            "label": work.label,
            "kind": work.stages[0].kind,
            "keys": [stage.key for stage in work.stages],
            "begin": round(begin, 3),
            "end": round(time.time(), 3),
            "made": made,
        }
        with self._path.open("a") as file:
            file.write(strict_json.dumps(row) + "\n")
