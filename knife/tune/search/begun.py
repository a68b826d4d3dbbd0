"""The trials of a phase: which have begun, which have ended, and their results."""

import itertools
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knife.store.store import fingerprint
from knife.tune.search.history import read_history, read_seconds
from knife.tune.search.space import Space
from knife.tune.search.trial import SCORE, point_of
from knife.tune.search.trials import State, TrialRow


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


def begun_trials(folder: Path, space: Space) -> list[Begun]:
    """Read the trials that have begun in a phase's folder, ordered by number."""
    params: dict[str, dict[str, Any]] = {}
    reports: dict[str, list[dict[str, Any]]] = defaultdict(list)
    errors: dict[str, str] = {}
    pruned = set()
    for line in read_history(folder):
        match line:
            case {"trial": trial, "params": given}:
                params[trial] = given
            case {"trial": trial, "report": report}:
                reports[trial].append(report)
            case {"trial": trial, "failed": error}:
                errors[trial] = error
            case {"trial": trial}:
                pruned.add(trial)
    _, seconds = read_seconds(folder)
    found = []
    for trial, given in params.items():
        # A finished trial stays finished, whatever a later start reported.
        ordered = sorted(reports[trial], key=lambda report: bool(report["finished"]))
        last = ordered[-1] if ordered else {}
        state: State = "stopped"
        if last.get("finished"):
            state = "finished"
        elif trial in errors:
            state = "failed"
        elif trial in pruned:
            state = "pruned"
        row = TrialRow(
            number=given["number"],
            point=point_of(given, space),
            state=state,
            score=last.get(SCORE) if state != "failed" else None,
            seconds=round(seconds.get(trial, 0.0), 3),
            by_epoch={int(report["epoch"]): float(report[SCORE]) for report in ordered},
            times={int(report["epoch"]): float(report["timestamp"]) for report in ordered},
            scores=_by_seed(last.get("scores")),
            tests=_by_seed(last.get("tests")),
            students=_by_seed(last.get("students")),
            error=errors[trial] if state == "failed" else None,
        )
        found.append(Begun(given, row, ended=state != "stopped"))
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


def _by_seed(values: dict[str, Any] | None) -> dict[int, Any]:
    return {int(seed): value for seed, value in (values or {}).items()}
