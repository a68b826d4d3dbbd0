"""A sweep in MLflow: a parent run, a nested run for each trial, and in it one for each seed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knife.core.words import counted
from knife.plan.plan import Plan
from knife.report.markdown import verdict_markdown
from knife.stats.verdict import Verdict
from knife.store.store import Store, fingerprint
from knife.track.describe import NOTE, data_sets, member_params, run_tags
from knife.track.run_tree import trained_metrics
from knife.train.follow import Follower
from knife.train.journal import Row
from knife.tune.search.final import tie_note
from knife.tune.search.settings import METRICS
from knife.tune.search.space import Point, Space, describe
from knife.tune.search.sweep_file import flat
from knife.tune.search.trials import TrialRow

# They import MLflow, which takes seconds and must not happen before its settings are made.
if TYPE_CHECKING:
    from knife.track.run import TrackedRun
    from knife.track.tracker import Tracker

# In the description; trials.csv has all of them.
SHOWN_TRIALS = 20


class SweepRecord:
    """Records a sweep in MLflow; every call may be repeated.

    Args:
        tracker: sends to MLflow.
        follower: reads the journals of the trainings.
        space: the sweep's space.
        name: the sweep's name, `key` its fingerprint, `settings` all its settings.
        plan: one of its trials, for the tags.
    """

    def __init__(
        self,
        tracker: Tracker,
        follower: Follower,
        space: Space,
        name: str,
        key: str,
        settings: dict[str, Any],
        plan: Plan,
    ) -> None:
        tags = {"knife.fingerprint": key, "knife.sweep": name}
        tags[NOTE] = f"At work or cut off: {', '.join(settings['space'])}. No best trial yet."
        self.parent = tracker.open_run(name, key, settings, run_tags(plan) | tags)
        self._best = f"best_{settings['metric']}"
        self._best_of = max if METRICS[settings["metric"]] == "max" else min
        self._space = space
        self._follower = follower
        self._trials: dict[int, TrackedRun] = {}
        # By trial and the student's key.
        self._seeds: dict[int, dict[str, TrackedRun]] = {}
        self._store = Store(plan.config.store, write=False)

    def started(self, number: int, point: Point, plan: Plan | None) -> None:
        """Record the start of a trial, with the students of `plan` if it could be planned."""
        if number not in self._trials:
            # By number and point: a trial that a killed driver had begun resumes its run.
            key = f"{number}-{fingerprint(point)}"
            self._trials[number] = self.parent.child(
                f"trial {number}", key, flat(point), {"knife.trial": str(number)}
            )
        if plan is None:
            return
        for member in plan.members:
            student, name = member.student, f"trial {number} seed {member.seed}"
            tags = {"knife.method": member.method, "knife.fingerprint": student.key}
            params = member_params(plan, member)
            run = self._trials[number].child(name, student.key, params, tags)
            run.inputs(data_sets(plan, student.data, self._store))
            self._seeds.setdefault(number, {})[student.key] = run
            self._follower.follow("student", student.key, run)

    def reported(self, number: int, epoch: int, score: float) -> None:
        """Record a trial's score so far."""
        row: Row = {"step": epoch, "time": time.time(), "metrics": {f"epoch/{self._best}": score}}
        self._trials[number].log_row(row)

    def ended(self, row: TrialRow) -> None:
        """Record an ended trial's results and state. A pruned or stopped one has not failed."""
        run = self._trials[row.number]
        tags = {"knife.status": row.state}
        run.tag(tags | ({"knife.error": row.error} if row.error else {}))
        summary = {"trial_seconds": row.seconds}
        if row.score is not None:
            summary[self._best] = row.score
        if row.tests:
            summary["test_accuracy"] = sum(row.tests.values()) / len(row.tests)
        run.log_summary(summary)
        seeds = self._seeds.get(row.number, {})
        for key in set(row.students.values()) & seeds.keys():
            # The student may have been removed from the store since.
            if self._store.has("student", key):
                seeds[key].log_summary(trained_metrics(self._store, "student", key))
        for each in (*seeds.values(), run):
            each.finish("FAILED" if row.state == "failed" else "FINISHED")

    def closed(self) -> None:
        """End the runs that a killed driver began and that were not resumed; no trial runs any
        more."""
        self.parent.end_strays()

    def register(self, row: TrialRow, name: str) -> None:
        """Make the trial's best student the champion of a registered model."""
        assert row.scores, "a trial that won has students"
        seed = self._best_of(row.scores, key=row.scores.__getitem__)
        key = row.students[seed]
        run = self._seeds[row.number][key]
        run.model(self._store.path("student", key) / "model", run.name)
        run.register(run.name, name)

    def concluded(self, rows: list[TrialRow], best: TrialRow, verdict: Verdict | None) -> None:
        """Record the sweep's description: the winner, the best trials, and the verdict on test."""
        ranked = sorted(
            (row for row in rows if row.score is not None),
            key=lambda row: row.score or 0.0,
            reverse=self._best_of is max,
        )
        lines = [
            f"**Best: trial {best.number}** ({describe(best.point)}), {self._best}"
            f" = {best.score:.4f}; {counted(len(rows), 'trial')}.",
            "",
            f"| trial | {self._best} | seeds | state | point |",
            "| ---: | ---: | ---: | --- | --- |",
            *(
                f"| {row.number} | {row.score:.4f} | {len(row.scores)} | {row.state} |"
                f" {describe(row.point)} |"
                for row in ranked[:SHOWN_TRIALS]
            ),
        ]
        if len(ranked) > SHOWN_TRIALS:
            lines.append(f"\nAnd {len(ranked) - SHOWN_TRIALS} more: trials.csv.")
        lines += [f"\n{note}" for note in [tie_note(self._space, rows)] if note]
        text = "\n".join(lines)
        if verdict:
            text += f"\n\nOn test, with seeds of their own:\n\n{verdict_markdown(verdict)}"
        self.parent.tag({NOTE: text})
        assert best.score is not None, "a trial that won has a score"
        self.parent.log_summary({self._best: best.score})

    def artifacts(self, paths: list[Path], folder: str = "") -> None:
        """Record files of the whole sweep."""
        for path in paths:
            self.parent.artifact(path, folder)
