import math
import sqlite3
import warnings
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from made_up import ALIGNMENT, KNIFE, LOW_RESOURCE, a_row, a_space, alignment_rows, grid_rows
from optuna.trial import TrialState

from knife.tune.search.study import best, export_study, ranked


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_ranked_by_the_direction_and_then_the_number() -> None:
    point = {"data.fraction": 0.1}
    rows = [
        a_row(3, point, 0.8),
        a_row(1, point, 0.6),
        a_row(2, point, 0.8),
        a_row(4, point, 0.9, "pruned"),
        a_row(5, point, None, "failed"),
        a_row(6, point, float("nan")),
        a_row(7, point, 0.0),
    ]
    up = a_space({"data.fraction": {"choice": [0.1]}})
    assert [row.number for row in ranked(up, rows)] == [2, 3, 1, 7]
    down = a_space({"data.fraction": {"choice": [0.1]}}, metric="dev_loss")
    assert [row.number for row in ranked(down, rows)] == [7, 1, 2, 3]
    assert best(up, rows) == rows[2]
    assert best(up, rows[3:6]) is None


def test_export_has_all_that_a_trial_has(tmp_path: Path) -> None:
    rows = alignment_rows()
    path = tmp_path / "new" / "100 % of it? #1.db"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_study(ALIGNMENT, list(reversed(rows)), path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    path = path.rename(tmp_path / "study.db")
    study = optuna.load_study(study_name="alignment", storage=url(path))
    assert study.direction.name == "MAXIMIZE"
    assert study.user_attrs == {"metric": "dev_accuracy", "base": "demo"}
    assert study.metric_names == ["dev_accuracy"]
    states = {4: TrialState.FAIL, 6: TrialState.PRUNED, 9: TrialState.PRUNED, 12: TrialState.PRUNED}
    for row, trial in zip(rows, study.trials, strict=True):
        assert trial.state == states.get(row.number, TrialState.COMPLETE)
        assert trial.value == row.score
        assert ALIGNMENT.decode(trial.params) == row.point
        assert trial.intermediate_values == row.by_epoch
        assert trial.duration is not None
        assert trial.duration.total_seconds() == pytest.approx(row.seconds)
        assert trial.user_attrs["number"] == row.number
        assert trial.user_attrs["seconds"] == row.seconds
        assert trial.user_attrs["scores"] == {str(k): v for k, v in row.scores.items()}
        assert trial.user_attrs.get("error") == row.error
    found = best(ALIGNMENT, rows)
    assert found
    assert study.best_trial.number == found.number - 1
    assert study.trials[8].user_attrs["state"] == "stopped"


def test_export_can_be_analysed(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    export_study(ALIGNMENT, alignment_rows(), path)
    study = optuna.load_study(study_name="alignment", storage=url(path))
    importances = optuna.importance.get_param_importances(study)
    assert set(importances) == set(ALIGNMENT.sweep.space)
    assert sum(importances.values()) == pytest.approx(1)
    # What the dashboard reads first.
    summaries = optuna.get_all_study_summaries(url(path))
    assert [summary.study_name for summary in summaries] == ["alignment", "alignment-cost"]


def test_export_for_the_pareto_front(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    rows = alignment_rows()
    export_study(ALIGNMENT, rows, path)
    cost = optuna.load_study(study_name="alignment-cost", storage=url(path))
    assert [direction.name for direction in cost.directions] == ["MAXIMIZE", "MINIMIZE"]
    finished = [row for row in rows if row.state == "finished"]
    assert [trial.values for trial in cost.trials] == [[r.score, r.seconds] for r in finished]
    assert cost.user_attrs["metric"] == "dev_accuracy"
    # The first one is best and fastest.
    assert [trial.user_attrs["number"] for trial in cost.best_trials] == [1]


def test_export_of_mappings_and_lists(tmp_path: Path) -> None:
    space = a_space(
        {
            "model": {"grid": [{"teacher": "a", "student": "b"}, {"teacher": "b", "student": "b"}]},
            "align.input.layers": {"grid": [[[3, 3]], "last"]},
            "methods": {"grid": ["finetune", KNIFE]},
        },
        search="grid",
        metric="dev_loss",
    )
    rows = grid_rows(space)
    export_study(space, rows, tmp_path / "study.db")
    study = optuna.load_study(study_name="made-up", storage=url(tmp_path / "study.db"))
    assert study.direction.name == "MINIMIZE"
    assert [space.decode(trial.params) for trial in study.trials] == [row.point for row in rows]
    assert set(study.trials[0].user_attrs["tests"]) == {"0", "1", "2"}


def test_export_replaces_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    (tmp_path / ".study.db.tmp").write_text("left by somebody who was killed")
    export_study(ALIGNMENT, alignment_rows(3), path)
    export_study(ALIGNMENT, alignment_rows(), path)
    assert len(optuna.load_study(study_name="alignment", storage=url(path)).trials) == 16
    assert [file.name for file in tmp_path.iterdir()] == ["study.db"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_export_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    export_study(ALIGNMENT, alignment_rows(3), path)
    before = path.read_bytes()
    wrong = replace(alignment_rows(1)[0], point=dict.fromkeys(ALIGNMENT.sweep.space, -1))
    with pytest.raises(ValueError, match="-1"):
        export_study(ALIGNMENT, [wrong], path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["study.db"]


@pytest.mark.parametrize("rows", [[], alignment_rows(16)[3:4]])
def test_export_without_results(tmp_path: Path, rows: list) -> None:  # type: ignore[type-arg]
    export_study(ALIGNMENT, rows, tmp_path / "study.db")
    storage = url(tmp_path / "study.db")
    assert len(optuna.load_study(study_name="alignment", storage=storage).trials) == len(rows)
    assert not optuna.load_study(study_name="alignment-cost", storage=storage).trials


def test_finished_without_a_number_is_failed(tmp_path: Path) -> None:
    rows = [replace(row, score=math.nan) for row in alignment_rows(2)]
    rows.append(replace(alignment_rows(6)[5], score=math.nan))
    export_study(ALIGNMENT, rows, tmp_path / "study.db")
    study = optuna.load_study(study_name="alignment", storage=url(tmp_path / "study.db"))
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, TrialState.FAIL, TrialState.PRUNED]


def test_verbosity_of_others_stays(tmp_path: Path) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        export_study(LOW_RESOURCE, grid_rows(LOW_RESOURCE), tmp_path / "study.db")
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(before)
