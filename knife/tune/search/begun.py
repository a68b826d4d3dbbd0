"""The trials in an experiment's folder: which have begun, which have ended, and their results."""

import itertools
import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knife.core import strict_json
from knife.core.atomic import write_text
from knife.store.store import fingerprint
from knife.tune.search.schedulers import pruned
from knife.tune.search.seconds import seconds_by_trial
from knife.tune.search.space import Space
from knife.tune.search.trial import SCORE, failure_note, point_of, trial_key
from knife.tune.search.trials import State, TrialRow

_PARAMS, _REPORTS = "params.json", "result.json"
_REPORTED = (SCORE, "epoch", "finished", "scores", "students", "tests")


@dataclass(frozen=True)
class Begun:
    """A trial that has begun, at this start or an earlier one.

    Attributes:
        params: its params, including its number.
        row: its result; if it has not `ended`, its result so far, with the state `stopped`.
        ended: whether no work on it is left.
    """

    params: dict[str, Any]
    row: TrialRow
    ended: bool


def note_start(folder: Path, params: dict[str, Any]) -> None:
    """Keep a note that a trial of these params starts; `folder` belongs to this start alone."""
    write_text(folder / _PARAMS, strict_json.dumps(params))


def note_report(folder: Path, result: dict[str, Any]) -> None:
    """Write a trial's report to disk at once: Ray Tune's own files have it only once closed."""
    report = {name: result[name] for name in (*_REPORTED, "timestamp")}
    with (folder / _REPORTS).open("a") as file:
        file.write(strict_json.dumps(report) + "\n")


def begun_trials(folder: Path, space: Space) -> list[Begun]:
    """Read the trials that have begun in an experiment, ordered by number.

    Each start of a trial has its own folder. From files that are being written, or that a kill
    truncated, the complete part counts.
    """
    ended_early, seconds = pruned(folder), seconds_by_trial(folder)
    params_by_key: dict[str, dict[str, Any]] = {}
    reports: dict[str, list[dict[str, Any]]] = {}
    for path in folder.glob(f"*/{_PARAMS}"):
        with suppress(ValueError):
            params = json.loads(path.read_text())
            key = trial_key(params)
            params_by_key[key] = params
            reports.setdefault(key, []).extend(_reports(path.with_name(_REPORTS)))
    found = []
    for key, params in params_by_key.items():
        told = sorted(reports[key], key=lambda r: (bool(r.get("finished")), r.get("timestamp", 0)))
        last = told[-1] if told else {}
        note = failure_note(folder / "failed", params)
        state: State = "stopped"
        if last.get("finished"):
            state = "finished"
        elif note.is_file():
            state = "failed"
        elif key in ended_early:
            state = "pruned"
        row = TrialRow(
            number=params["number"],
            point=point_of(params, space),
            state=state,
            score=last.get(SCORE) if state != "failed" else None,
            seconds=round(seconds.get(key, 0.0), 3),
            by_epoch={int(report["epoch"]): float(report[SCORE]) for report in told},
            times={int(r["epoch"]): float(r["timestamp"]) for r in told if "timestamp" in r},
            scores=_by_seed(last.get("scores")),
            tests=_by_seed(last.get("tests")),
            students=_by_seed(last.get("students")),
            error=note.read_text() if state == "failed" else None,
        )
        found.append(Begun(params, row, ended=state != "stopped"))
    return sorted(found, key=lambda each: each.row.number)


def numbered(params: Sequence[dict[str, Any]], begun: Sequence[Begun]) -> list[dict[str, Any]]:
    """Return the params with trial numbers: trials that have begun keep theirs, the others get
    free numbers from 1 up."""
    known = {_without_number(each.params): each.row.number for each in begun}
    taken = set(known.values())
    found = []
    for each in params:
        number = known.get(_without_number(each)) or free_number(taken)
        taken.add(number)
        found.append({"number": number} | each)
    return found


def free_number(taken: Collection[int]) -> int:
    """Return the lowest number from 1 up that no trial has."""
    return next(number for number in itertools.count(1) if number not in taken)


def _without_number(params: dict[str, Any]) -> str:
    return fingerprint({key: value for key, value in params.items() if key != "number"})


def _reports(path: Path) -> list[dict[str, Any]]:
    """Return a trial's reports that have a score, complete lines only."""
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [row for row in rows if SCORE in row]


def _by_seed(values: dict[str, Any] | None) -> dict[int, Any]:
    return {int(seed): value for seed, value in (values or {}).items()}
