"""The data of a run's report, all of it from the store."""

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import fsum
from pathlib import Path
from typing import Any

from knife.core.errors import UserError
from knife.data.example import Example
from knife.data.examples import Examples
from knife.stats.ties import Ties, tie_notes
from knife.stats.verdict import Ceiling, Verdict, baseline_of, verdict
from knife.store.store import Store
from knife.train.journal import Position, read_stage
from knife.train.journal import Row as JournalRow
from knife.train.results import read_predictions, read_trained

Row = dict[str, Any]
# How the run was made, in its folder: written by knife.pipeline.record.
RECORD = "run.json"


@dataclass(frozen=True)
class RunData:
    """A run, finished or not.

    Attributes:
        folder: the run's folder in the store.
        store: the artifact store.
        config: the resolved config, without secrets.
        record: stages, members and starts, as `knife.pipeline.record` writes them; empty for a run
            of a version without records.
    """

    folder: Path
    store: Store
    config: Row
    record: Row

    @staticmethod
    def read(folder: Path, store: Store) -> "RunData":
        """Read a run's folder.

        Raises:
            UserError: its config is missing.
        """
        store.recall(folder)
        config = folder / "config.json"
        if not config.is_file():
            raise UserError(
                f"{folder} has no {config.name}; run the same `knife run` again to write it"
            )
        record = folder / RECORD
        return RunData(
            folder,
            store,
            json.loads(config.read_text()),
            json.loads(record.read_text()) if record.is_file() else {},
        )

    @property
    def finished(self) -> bool:
        """Whether the run has its verdict."""
        return (self.folder / "verdict.json").is_file()

    @cached_property
    def verdict(self) -> Verdict | None:
        """The run's verdict or, while it is unfinished, one from the evaluations so far."""
        if self.finished:
            return Verdict.from_dict(json.loads((self.folder / "verdict.json").read_text()))
        rights: dict[str, dict[int, dict[str, float]]] = {}
        ties: dict[str, list[Ties]] = {}
        for member in self.members:
            if rows := self.predictions(member["evaluate"]):
                right = {row["id"]: row["right"] for row in rows}
                rights.setdefault(member["method"], {})[member["seed"]] = right
                ties.setdefault(member["method"], []).append(Ties.of(rows))
        if not rights:
            return None
        shares = {name: self._accuracy(key) for name, key in self.record["ceiling"].items()}
        ceiling = Ceiling(shares.get("with"), shares.get("without")) if shares else None
        compare = self.config["compare"]
        baseline = baseline_of(compare["baseline"], rights)
        seeds = set(rights.get(baseline, {}))
        if seeds:
            # Only methods that share a seed with the baseline can be compared.
            rights = {name: found for name, found in rights.items() if seeds & set(found)}
        return verdict(rights, baseline, ceiling, compare["margin"], tie_notes(ties))

    @property
    def members(self) -> list[Row]:
        """Method, seed and keys of student and evaluation of each member."""
        found: list[Row] = self.record.get("members", [])
        return found

    @property
    def stages(self) -> list[Row]:
        """Every stage: kind, key, label, and the keys of the stages that it reads."""
        found: list[Row] = self.record.get("stages", [])
        return found

    def journal(self, kind: str, key: str) -> list[JournalRow]:
        """Read a stage's journal, even while it runs; empty if there is none."""
        return journal(self.store, kind, key)

    def trained(self, kind: str, key: str) -> Row:
        """Read a training's steps, best step, dev accuracy and seconds; empty until its end."""
        return trained(self.store, kind, key)

    def predictions(self, key: str) -> list[Row]:
        """Read an evaluation's rows; empty if the store lacks it."""
        if not self.store.has("evaluate", key):
            return []
        return read_predictions(self.store, key)

    def test_examples(self) -> dict[str, Example]:
        """Read the test split by id; empty if the store lacks it or it is damaged."""
        for key in {stage["data"] for stage in self.stages}:
            # Arrow's errors are of the second kind.
            with suppress(FileNotFoundError, ValueError):
                examples = Examples.parse(self.store.read_bytes("data", key, "test.arrow"))
                return {example.id: example for example in examples}
        return {}

    def _accuracy(self, key: str) -> float | None:
        rows = self.predictions(key)
        return fsum(row["right"] for row in rows) / len(rows) if rows else None


def journal(store: Store, kind: str, key: str) -> list[JournalRow]:
    """Read a stage's journal, even while it runs; empty if there is none. Damaged lines are left
    out."""
    rows, _ = read_stage(store, kind, key, Position())
    return rows


def trained(store: Store, kind: str, key: str) -> Row:
    """Read a training's result: steps, best step, dev accuracy, seconds; empty before its end, or
    if the file is damaged."""
    try:
        return read_trained(store, kind, key)
    except (OSError, ValueError):
        return {}


def stage_seconds(journal: list[JournalRow], trained: Row) -> float:
    """Return how long a stage took, by its training's result or its journal; 0 if unknown. Teacher
    states that were computed in one pass over the data share its time."""
    span = journal[-1]["time"] - journal[0]["time"] if journal else 0.0
    span /= max((row["metrics"].get("sharing", 1) for row in journal), default=1)
    return float(trained.get("seconds") or span)
