"""A sweep as a tree of MLflow's runs: a parent, a run for each trial, in it one for each seed.

It is made from the sweep's folder and the students in the store, and from nothing else.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knife.config.overrides import describe, flat
from knife.core import strict_json
from knife.core.words import counted
from knife.report.markdown import verdict_markdown
from knife.report.run_page import NAME as REPORT
from knife.stats.verdict import Verdict
from knife.store.store import Store, fingerprint
from knife.track.node import SYSTEM, DataSet, RunNode, Status
from knife.track.params import to_params, to_tags
from knife.track.run_tree import NOTE, as_yaml, failed_note, run_tree, trained_metrics
from knife.track.starts import finished_at, last_row_time, status_of
from knife.train.journal import Row
from knife.tune.report.data import SweepData
from knife.tune.search.about import ABOUT, SWEEP_VERSION
from knife.tune.search.final import RECIPE, tie_note
from knife.tune.search.trials import TrialRow

# In the description; trials.csv has all of them.
SHOWN_TRIALS = 20
# What a sweep writes for people, in its folder.
_FILES = ("trials.csv", "study.db", "plots/*.png", RECIPE, REPORT)


def sweep_tree(folder: Path, store: Store, *, alive: bool) -> RunNode | None:
    """Return the tree of the sweep in a folder; None if it is of an earlier version.

    `alive` says whether a process is working on it.
    """
    about = json.loads((folder / ABOUT).read_text())
    if about["version"] != SWEEP_VERSION or "tags" not in about:
        return None
    sweep = SweepData.of(folder, store, about)
    trials = sweep.trials
    students = [("student", key) for trial in trials.values() for key in trial["students"]]
    starts = about["starts"]
    status, ended = status_of(starts, lambda: last_row_time(store, students), alive=alive)
    parent = _Parent(sweep, starts[0]["time"], status, ended)
    settings = sweep.space.sweep.model_dump(mode="json", exclude_none=True)
    config = settings | {"base_config": sweep.space.base}
    tags = about["tags"] | {"knife.fingerprint": about["key"], "knife.sweep": about["name"]}
    tags[NOTE] = f"Running or interrupted: {', '.join(settings['space'])}. No best trial yet."
    summary = {}
    if status == "FAILED":
        tags[NOTE] = failed_note(starts[-1])
    elif sweep.result:
        best = sweep.best
        assert best
        assert best.score is not None, "a trial that won has a score"
        tags[NOTE] = _concluded_note(sweep, best)
        summary = {parent.best_name: best.score}
    written = [path for each in _FILES for path in sorted(folder.glob(each))]
    return RunNode(
        key=about["key"],
        name=about["name"],
        began=parent.began,
        status=status,
        ended=ended,
        params=to_params(config),
        tags=to_tags(tags),
        row_file=f"sweeps/{folder.name}/{SYSTEM}",
        summary=summary,
        texts={"config.yaml": as_yaml(strict_json.dumps(config))},
        files=tuple(f"sweeps/{folder.name}/{path.relative_to(folder)}" for path in written)
        if status == "FINISHED"
        else (),
        children=tuple(parent.trial(number) for number in sorted(trials)),
    )


#: How what MLflow shows is made, by the folder of the store that has it.
TREES = {"runs": run_tree, "sweeps": sweep_tree}


@dataclass(frozen=True)
class _Parent:
    sweep: SweepData
    began: float
    status: Status
    ended: float | None

    @property
    def best_name(self) -> str:
        return f"best_{self.sweep.space.sweep.metric}"

    def trial(self, number: int) -> RunNode:
        """Return the run of a trial; it has ended if the trial has, or else ends with the sweep."""
        about = self.sweep.trials[number]
        row = self.sweep.by_number.get(number)
        tags = {"knife.trial": str(number)}
        summary: dict[str, float] = {}
        scores: list[Row] = []
        status, ended = self.status, self.ended
        began = about["starts"][0]
        if row:
            name = f"epoch/{self.best_name}"
            scores = [
                {"step": epoch, "time": row.times.get(epoch, began), "metrics": {name: score}}
                for epoch, score in sorted(row.by_epoch.items())
            ]
        if row and number not in self.sweep.running:
            # One that was pruned, or stopped by the budget, has not failed.
            status = "FAILED" if row.state == "failed" else "FINISHED"
            ended = max(row.times.values(), default=began + row.seconds)
            tags |= {"knife.status": row.state}
            tags |= {"knife.error": row.error} if row.error else {}
            # While the search runs, its seconds and the best score are still counted.
            summary = _summary(self.best_name, row) if self.sweep.searched else {}
        seeds = [
            self._seed(number, key, student, (began, status, ended))
            for key, student in about["students"].items()
        ]
        return RunNode(
            key=f"{number}-{fingerprint(about['point'])}",
            name=f"trial {number}",
            began=began,
            status=status,
            ended=ended,
            params=to_params(flat(about["point"])),
            tags=to_tags(tags),
            rows=tuple(scores),
            summary=summary,
            texts={},
            children=tuple(seeds),
        )

    def _seed(
        self,
        number: int,
        key: str,
        student: dict[str, Any],
        trial: tuple[float, Status, float | None],
    ) -> RunNode:
        """Return the run of one student. One of the search ends with its trial; one that was
        trained later, when the trial had its result, ends with the sweep."""
        store = self.sweep.store
        began, status, ended = trial
        if student["phase"] != "search":
            began, status, ended = student["began"], self.status, self.ended
        summary = {}
        if finished := finished_at(store, "student", key):
            status, summary = "FINISHED", trained_metrics(store, "student", key)
            ended = max(began, finished)
        tags = {"knife.method": student["params"]["method"], "knife.fingerprint": key}
        registered = self._registered() == key
        return RunNode(
            key=key,
            name=f"trial {number} seed {student['params']['seed']}",
            began=began,
            status=status,
            ended=ended,
            params=student["params"],
            tags=to_tags(tags),
            inputs=tuple(DataSet(**each) for each in self.sweep.about["data"][student["data"]]),
            journals=(("student", key),),
            summary=summary,
            texts={},
            model=f"student/{key}/model" if registered else None,
            registered=self.sweep.about["register"] if registered else None,
        )

    def _registered(self) -> str | None:
        """Return the student to register: without a final comparison, the best of the winner."""
        result, best = self.sweep.result, self.sweep.best
        if not result or not best or "final" in result or not self.sweep.about["register"]:
            return None
        choose = max if self.sweep.space.sweep.direction == "max" else min
        return best.students[choose(best.scores, key=best.scores.__getitem__)]


def _summary(best_name: str, row: TrialRow) -> dict[str, float]:
    summary = {"trial_seconds": row.seconds}
    if row.score is not None:
        summary[best_name] = row.score
    if row.tests:
        summary["test_accuracy"] = sum(row.tests.values()) / len(row.tests)
    return summary


def _concluded_note(sweep: SweepData, best: TrialRow) -> str:
    """Return the description of a finished sweep: winner, best trials, and the verdict on test."""
    name, rows = f"best_{sweep.space.sweep.metric}", sweep.rows
    ranked = _by_score(sweep, rows)
    lines = [
        f"**Best: trial {best.number}** ({describe(best.point)}), {name}"
        f" = {best.score:.4f}; {counted(len(rows), 'trial')}.",
        "",
        f"| trial | {name} | seeds | state | point |",
        "| ---: | ---: | ---: | --- | --- |",
        *(
            f"| {row.number} | {row.score:.4f} | {len(row.scores)} | {row.state} |"
            f" {describe(row.point)} |"
            for row in ranked[:SHOWN_TRIALS]
        ),
    ]
    if len(ranked) > SHOWN_TRIALS:
        lines.append(f"\nAnd {len(ranked) - SHOWN_TRIALS} more: trials.csv.")
    lines += [f"\n{note}" for note in [tie_note(sweep.space, rows)] if note]
    text = "\n".join(lines)
    found: Verdict | None = sweep.verdict
    if found:
        text += f"\n\nOn test, with seeds of their own:\n\n{verdict_markdown(found)}"
    return text


def _by_score(sweep: SweepData, rows: Sequence[TrialRow]) -> list[TrialRow]:
    return sorted(
        (row for row in rows if row.score is not None),
        key=lambda row: row.score or 0.0,
        reverse=sweep.space.sweep.direction == "max",
    )
