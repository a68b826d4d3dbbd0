"""The data for a sweep's report, all read from the store."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from knife.core.errors import UserError
from knife.stats.verdict import Verdict
from knife.store.store import Store
from knife.tune.search.about import ABOUT, SWEEP_VERSION
from knife.tune.search.settings import Sweep
from knife.tune.search.space import Space
from knife.tune.search.study import best
from knife.tune.search.trials import TrialRow, read_rows

RESULT, TRIALS = "result.json", "trials.json"


@dataclass(frozen=True)
class SweepData:
    """A sweep, finished or in progress.

    Attributes:
        folder: the sweep's folder in the store.
        store: the store.
        about: settings, starts and what trials share, as knife.tune.search.about keeps them.
        rows: the trials that have ended, by number.
        result: the sweep's result; None while it is in progress.
        unfinished: the trials that have begun but not ended, with their results so far.
    """

    folder: Path
    store: Store
    about: dict[str, Any]
    rows: list[TrialRow]
    result: dict[str, Any] | None
    unfinished: tuple[TrialRow, ...] = ()

    @staticmethod
    def read(folder: Path, store: Store) -> "SweepData":
        """Read a sweep's folder.

        Raises:
            UserError: its settings are missing, or are those of another version.
        """
        store.recall(folder)
        if not (folder / ABOUT).is_file():
            raise UserError(f"{folder} has no {ABOUT}; run the same `knife tune` again to write it")
        about = json.loads((folder / ABOUT).read_text())
        if "sweep" not in about:
            raise UserError(
                f"{folder} was made by a version that did not keep the sweep's settings; run the "
                "same `knife tune` again to add them and the report, without retraining"
            )
        if about["version"] != SWEEP_VERSION:
            raise UserError(
                f"{folder} was made by another version of this package (sweeps of version "
                f"{about['version']}, this one reads version {SWEEP_VERSION}); make its report "
                "with that version"
            )
        return SweepData.of(folder, store, about)

    @staticmethod
    def of(folder: Path, store: Store, about: dict[str, Any]) -> "SweepData":
        """Read the trials of a sweep whose settings have been read."""
        result = folder / RESULT
        if result.is_file():
            rows = read_rows(folder / TRIALS)
            return SweepData(folder, store, about, rows, json.loads(result.read_text()))
        search = folder / "search.json"
        if search.is_file():
            return SweepData(folder, store, about, read_rows(search), None)
        # Takes seconds to import, because of Ray, and is only needed for a sweep in progress.
        from knife.tune.search.begun import begun_trials

        begun = begun_trials(folder / "search", Space(_sweep(about), about["base"]))
        rows = [each.row for each in begun if each.ended]
        unfinished = tuple(each.row for each in begun if not each.ended)
        return SweepData(folder, store, about, rows, None, unfinished)

    @cached_property
    def space(self) -> Space:
        """The sweep's space."""
        return Space(_sweep(self.about), self.about["base"])

    @property
    def running(self) -> tuple[int, ...]:
        """The numbers of the trials that have begun but not ended."""
        return tuple(row.number for row in self.unfinished)

    @cached_property
    def by_number(self) -> dict[int, TrialRow]:
        """Every trial that has begun, by its number."""
        return {row.number: row for row in (*self.rows, *self.unfinished)}

    @property
    def searched(self) -> bool:
        """Whether the search has ended; more seeds and the final comparison come after it."""
        return (self.folder / "search.json").is_file()

    @property
    def verdict(self) -> Verdict | None:
        """The winner against finetune; None before the sweep's end, or if it asks for none."""
        final = (self.result or {}).get("final")
        return Verdict.from_dict(final["verdict"]) if final else None

    @cached_property
    def best(self) -> TrialRow | None:
        """The sweep's winner, or the best trial so far if it is in progress."""
        if self.result:
            number = self.result["best"]["number"]
            return next(row for row in self.rows if row.number == number)
        return best(self.space, self.rows)

    def phase(self, name: str) -> list[TrialRow]:
        """Return the trainings of a phase after the search (`seeds`, `baseline`, `final`), once it
        has ended."""
        kept = self.folder / f"{name}.json"
        return read_rows(kept) if kept.is_file() else []

    @property
    def trials(self) -> dict[int, dict[str, Any]]:
        """When each trial of the search started, and which teachers and states it shares, by
        number."""
        return {int(number): trial for number, trial in self.about.get("trials", {}).items()}


def _sweep(about: dict[str, Any]) -> Sweep:
    return Sweep.model_validate(about["sweep"])
