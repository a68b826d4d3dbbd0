"""Scores of a run's rationales: make what they need, score, and store them with the run."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from knife.config.run import RunConfig
from knife.core import strict_json
from knife.core.atomic import write_json, write_text
from knife.core.errors import WorkFailedError
from knife.pipeline.run import Before, Display, make, prepared, refuse_what_cannot_fit
from knife.pipeline.score_written import score_written, with_written
from knife.pipeline.settle import settle
from knife.plan.scores import ScorePlan, plan_scores
from knife.plan.sources import SourceReader
from knife.stats.rationale_scores import RationaleScores, Scored, rationale_scores
from knife.stats.written_scores import WrittenScores
from knife.store.disk import disk_errors
from knife.store.store import Store
from knife.train.results import read_predictions

# Stored probabilities have six digits.
_LEAST = 5e-7


@dataclass(frozen=True)
class ScoreResult:
    """The scores of a run's rationales.

    Attributes:
        scores: over all test examples that have a rationale.
        rows: scores by example.
        written: scores of what students wrote, by method.
        folder: the run's folder, where both are stored.
        made: labels of the stages that were made for the scores.
        notes: what a user should know, one sentence each.
    """

    scores: RationaleScores
    rows: list[Scored]
    written: list[WrittenScores]
    folder: Path
    made: list[str]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict, without the rows, which are in the folder."""
        return {
            "scores": asdict(self.scores),
            "written": [asdict(each) for each in self.written],
            "folder": str(self.folder),
            "made": self.made,
            "notes": self.notes,
        }


def score(config: RunConfig, display: Display) -> ScoreResult:
    """Score the rationales of the run's test split.

    Teacher and `finetune` students are the run's, made if the store lacks them; others are not
    made: if students of `knife` are missing, their gain is not related to the scores, and of those
    that write rationales the ones are scored that are there.

    Raises:
        UserError: as `plan_scores` does, or if memory, disk or cluster do not suffice.
    """
    from knife.report.run_page import run_report, write_or_warn

    reader, before = SourceReader(), Before(config.store, display)
    # What cannot be scored is refused before any trial.
    wanted = plan_scores(config, reader)
    folder = wanted.plan.folder
    settled = settle(config, reader, before)
    if settled.config is not config:
        wanted = plan_scores(settled.config, reader)
    wanted = with_written(wanted, Store(config.store, write=False))
    plan = wanted.plan
    refuse_what_cannot_fit(plan)
    store = Store(config.store)
    with disk_errors(store.root):
        missing, damaged = prepared(plan, store)
        if missing and (failures := make(missing, plan, [], display)):
            raise WorkFailedError(*failures)
        notes = plan.notes + settled.sentences + before.notes + damaged
        rows = _rows(wanted, store)
        found = rationale_scores(rows, len(wanted.finetune))
        written, said = score_written(wanted, store, rows)
        notes += said
        if rows[0].gain is None:
            notes.append("to relate the gain of knife to the scores: knife run, then score again")
        folder.mkdir(parents=True, exist_ok=True)
        lines = [strict_json.dumps(asdict(row)) + "\n" for row in rows]
        write_text(folder / "rationale_scores.jsonl", "".join(lines))
        write_json(folder / "rationale_scores.json", asdict(found))
        write_json(folder / "written_scores.json", [asdict(each) for each in written])
        if (folder / "verdict.json").is_file():
            write_or_warn(folder, store, lambda: run_report(folder, store))
        store.keep(folder)
    made = [stage.label for stage in (*before.made, *missing)]
    return ScoreResult(found, rows, written, folder, made, notes)


def _rows(wanted: ScorePlan, store: Store) -> list[Scored]:
    def read(stage: Any) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in read_predictions(store, stage.key)}

    def share_right(tables: list[dict[str, dict[str, Any]]]) -> dict[str, float]:
        return {name: fmean(table[name]["right"] for table in tables) for name in wanted.ids}

    done = [m for m in wanted.knife if store.has("evaluate", m.evaluate.key)]
    whole = bool(done) and len(done) == len(wanted.knife)
    finetune = [read(member.evaluate) for member in wanted.finetune]
    without = share_right(finetune)
    knife = share_right([read(member.evaluate) for member in done]) if whole else {}
    teacher, rationale = read(wanted.teacher), read(wanted.rationale)
    vacuous, both = read(wanted.vacuous), read(wanted.both)
    return [
        Scored(
            id=name,
            without=without[name],
            explained=float(teacher[name]["right"]),
            leaks=rationale[name]["right"],
            leak=_log_probability(rationale[name]),
            information=_log_probability(teacher[name])
            - fmean(_log_probability(table[name]) for table in finetune),
            rev=_log_probability(both[name]) - _log_probability(vacuous[name]),
            room=-_log_probability(vacuous[name]),
            gain=knife[name] - without[name] if whole else None,
        )
        for name in wanted.ids
    ]


def _log_probability(row: dict[str, Any]) -> float:
    """Return the log probability of the right answer, for an open one the mean over its tokens."""
    if "log_probability" in row:
        return float(row["log_probability"])
    return math.log(max(row["probabilities"][row["answer"]], _LEAST))
