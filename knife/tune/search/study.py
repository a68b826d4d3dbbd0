"""The trials of a sweep as an optuna study, for optuna's dashboard, plots and analyses."""

import math
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from knife.core.atomic import replacing
from knife.tune.search.space import Space
from knife.tune.search.trials import State, TrialRow

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

# Optuna has no state for a trial that the budget ended; like a pruned one, it has no result.
_STATES: dict[State, str] = {
    "finished": "COMPLETE",
    "pruned": "PRUNED",
    "stopped": "PRUNED",
    "failed": "FAIL",
}


def ranked(space: Space, rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the finished trials with a score, best first, ties by number."""
    sign = -1 if space.sweep.direction == "max" else 1

    def place(row: TrialRow) -> tuple[float, int]:
        assert row.score is not None
        return sign * row.score, row.number

    return sorted(filter(_has_result, rows), key=place)


def best(space: Space, rows: Sequence[TrialRow]) -> TrialRow | None:
    """Return the best finished trial, if any; the earliest of a tie."""
    return next(iter(ranked(space, rows)), None)


def export_study(space: Space, rows: Sequence[TrialRow], path: Path) -> None:
    """Write the trials as a SQLite file that `optuna-dashboard sqlite:///PATH` shows.

    One study has the sweep's name and every trial; `NAME-cost` has the finished trials with two
    objectives, the metric and the seconds. An existing file is replaced.
    """
    from optuna.storages import RDBStorage
    from sqlalchemy import NullPool

    with quiet_optuna(), replacing(path) as unfinished:
        # Connect ourselves: in a URL, characters of the path could have a special meaning.
        connections = {"creator": lambda: _connect(unfinished), "poolclass": NullPool}
        storage = RDBStorage("sqlite://", connections)
        try:
            for study in _fill(space, rows, storage):
                study.set_user_attr("metric", space.sweep.metric)
                study.set_user_attr("base", space.sweep.base)
        finally:
            storage.remove_session()
            storage.engine.dispose()


def frozen_trials(space: Space, rows: Sequence[TrialRow]) -> list["FrozenTrial"]:
    """Return the trials in optuna's form, by number, with values that its storages can keep.

    When they began is not known: they are dated one after another, with the last ending now.
    """
    from optuna.trial import TrialState, create_trial

    distributions = space.distributions()
    start = datetime.now() - timedelta(seconds=sum(row.seconds for row in rows))
    trials = []
    for row in sorted(rows, key=lambda row: row.number):
        failed = row.state == "failed" or (row.state == "finished" and not _has_result(row))
        trial = create_trial(
            state=TrialState.FAIL if failed else TrialState[_STATES[row.state]],
            value=None if failed or not _is_finite(row.score) else row.score,
            params=space.encode({key: row.point[key] for key in distributions}),
            distributions=distributions,
            user_attrs=_attributes(row),
            intermediate_values=dict(row.by_epoch),
        )
        trial.datetime_start = start
        trial.datetime_complete = start = start + timedelta(seconds=row.seconds)
        trials.append(trial)
    return trials


def cost_trials(trials: Sequence["FrozenTrial"]) -> list["FrozenTrial"]:
    """Return the finished ones of `frozen_trials` with two values: the metric and the seconds."""
    from optuna.trial import TrialState, create_trial

    found = []
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            two = create_trial(
                values=[trial.values[0], trial.user_attrs["seconds"]],
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=trial.user_attrs,
            )
            two.datetime_start = trial.datetime_start
            two.datetime_complete = trial.datetime_complete
            found.append(two)
    return found


def direction_name(space: Space) -> Literal["maximize", "minimize"]:
    """Return optuna's name for the sweep's direction."""
    return "maximize" if space.sweep.direction == "max" else "minimize"


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence optuna's log and its warnings about experimental functions."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _fill(space: Space, rows: Sequence[TrialRow], storage: Any) -> Iterator["Study"]:
    """Create both studies in the storage."""
    import optuna

    name, metric, direction = space.sweep.name, space.sweep.metric, direction_name(space)
    trials = frozen_trials(space, rows)
    study = optuna.create_study(storage=storage, study_name=name, direction=direction)
    study.set_metric_names([metric])
    study.add_trials(trials)
    yield study
    cost = optuna.create_study(
        storage=storage, study_name=f"{name}-cost", directions=[direction, "minimize"]
    )
    cost.set_metric_names([metric, "seconds"])
    cost.add_trials(cost_trials(trials))
    yield cost


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    # Nothing reads the file before it is complete, so crash safety would only cost time.
    connection.execute("PRAGMA journal_mode=MEMORY")
    connection.execute("PRAGMA synchronous=OFF")
    return connection


def _attributes(row: TrialRow) -> dict[str, Any]:
    found: dict[str, Any] = {"number": row.number, "state": row.state, "seconds": row.seconds}
    found |= {"scores": {str(seed): score for seed, score in row.scores.items()}}
    found |= {"tests": {str(seed): score for seed, score in row.tests.items()}} if row.tests else {}
    return found | ({"error": row.error} if row.error is not None else {})


def _has_result(row: TrialRow) -> bool:
    return row.state == "finished" and _is_finite(row.score)


def _is_finite(score: float | None) -> bool:
    return score is not None and math.isfinite(score)
