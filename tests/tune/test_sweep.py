"""Small whole sweeps as a user runs them, with Ray: what is trained, kept and recorded."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from command_fixtures import Command
from documented import example
from mlflow import MlflowClient
from recorded import journal_points, points, run_tree
from small_sweep import (
    FIRST,
    PRUNED,
    RATE,
    Swept,
    Tune,
    sweep,
    trainings,
    write_sweep,
)

from knife.core.errors import UserError
from knife.plan.plan import plan_run
from knife.store.store import Store
from knife.tune.command import plan_file
from knife.tune.search.final import RECIPE
from knife.tune.sweep import sweep_key


def test_a_sweep_from_python(
    swept: Swept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example of docs/python.md, on a finished sweep."""
    monkeypatch.chdir(swept.path.parent)
    Path("weights.yaml").write_bytes(swept.path.read_bytes())
    found: dict[str, Any] = {}
    exec(example("sweep"), found)
    result = found["found"]
    best = swept.rows[swept.result["best"]["number"]]
    assert json.loads(json.dumps(result.best.to_dict())) == best
    assert result.verdict.to_dict() == swept.result["final"]["verdict"]
    assert capsys.readouterr().out.splitlines()[-1] == str(swept.folder)
    with pytest.raises(UserError, match="belongs to another sweep"):
        found["sweep"]("weights.yaml", seed=5)


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_one_teacher_is_trained_for_all_trials(swept: Swept) -> None:
    started = trainings(swept.path.parent)
    (teacher,) = [name for name in started if name.startswith("teacher-")]
    assert started[teacher] == 1
    assert [count for name, count in started.items() if name.startswith("states-")] == [1]
    students = [name for name in started if name.startswith("student-")]
    # The search, a further seed, finetune with two settings, and both of the final.
    assert len(students) == 4 + 1 + 2 + 2
    assert {started[name] for name in students} == {1}
    store = swept.store
    assert [path.name for path in (store.root / "teacher").iterdir()] == [
        teacher.removeprefix("teacher-")
    ]
    # The fourth trial may be pruned as well.
    pruned = [row for row in swept.rows.values() if row["state"] == "pruned"]
    assert len(list((store.root / "student").iterdir())) == len(students) - len(pruned)
    for kind in ("teacher", "states", "student", "evaluate", "data"):
        for path in (store.root / kind).iterdir():
            assert store.damage(kind, path.name) == []
    assert swept.left_in_work() == []


def test_trials_are_numbered_and_told_apart(swept: Swept) -> None:
    rows = swept.rows
    assert list(rows) == [1, 2, 3, 4]
    assert [rows[number]["point"] for number in (1, 2, 3)] == FIRST
    assert [row["point"] for row in rows.values()] == swept.plan.points
    assert rows[PRUNED]["state"] == "pruned"
    assert rows[1]["state"] == "finished"
    assert list(rows[PRUNED]["by_epoch"]) == ["1"]
    assert list(rows[1]["by_epoch"]) == ["1", "2"]
    best = swept.result["best"]
    assert sorted(best["scores"]) == ["0", "1"]
    others = [row for row in rows.values() if row["state"] == "finished" and row != best]
    assert all(sorted(row["scores"]) == ["0"] for row in others)
    assert sum(swept.result["states"].values()) == 4
    for row in rows.values():
        for seed, key in row["students"].items():
            trained = json.loads((swept.store.path("student", key) / "trained.json").read_text())
            assert row["scores"][seed] == trained["dev_loss"]


def test_mlflow_has_the_sweep_its_trials_and_their_seeds(swept: Swept) -> None:
    parent, trials = swept.tracked()
    uri = swept.result["mlflow"]["uri"]
    assert (parent.info.run_name, parent.info.status) == ("small", "FINISHED")
    assert parent.data.params["budget.trials"] == "4"
    assert parent.data.metrics["best_dev_loss"] == swept.result["best"]["score"]
    assert set(trials) == {f"trial {number}" for number in range(1, 5)}
    artifacts = {file.path for file in MlflowClient(uri).list_artifacts(parent.info.run_id)}
    # Some plots need more trials than may have been left to finish.
    drawn = {path.name for path in (swept.folder / "plots").iterdir()}
    assert {"trials.csv", "study.db", RECIPE, "history.png", *drawn} <= artifacts
    for number, row in swept.rows.items():
        run = trials[f"trial {number}"]
        assert run.info.status == "FINISHED"
        assert run.data.tags["knife.status"] == row["state"]
        assert run.data.params == {key: str(value) for key, value in row["point"].items()}
        assert run.data.metrics["best_dev_loss"] == row["score"]
        by_epoch = [p for p in points(uri, run) if p[0] == "epoch/best_dev_loss"]
        scores = {str(step): value for _, step, value in by_epoch}
        assert scores == row["by_epoch"]
        _, seeds = run_tree(uri, run.info.run_id)
        expected = row["scores"] or {"0": None}
        assert set(seeds) == {f"trial {number} seed {seed}" for seed in expected}
        for each in seeds.values():
            assert each.info.status == "FINISHED"
            assert each.data.tags["knife.method"] == "knife"
    experiment = [parent.info.experiment_id]
    statuses = {run.info.status for run in MlflowClient(uri).search_runs(experiment)}
    assert statuses == {"FINISHED"}


def test_mlflow_has_the_journals_of_the_seeds(swept: Swept) -> None:
    _, trials = swept.tracked()
    uri = swept.result["mlflow"]["uri"]
    for number, row in swept.rows.items():
        _, seeds = run_tree(uri, trials[f"trial {number}"].info.run_id)
        for seed in row["scores"]:
            config = swept.plan.space.config(row["point"], [int(seed)])
            (member,) = plan_run(config).members
            found = points(uri, seeds[f"trial {number} seed {seed}"])
            assert found == journal_points(swept.store, member.student)


def test_files_for_people(swept: Swept, command: Command) -> None:
    folder = swept.folder
    lines = (folder / "trials.csv").read_text().splitlines()
    assert len(lines) == 5
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{folder / 'study.db'}")
    assert [trial.user_attrs["number"] for trial in study.trials] == [1, 2, 3, 4]
    assert study.trials[PRUNED - 1].state == optuna.trial.TrialState.PRUNED
    assert study.best_trial.user_attrs["number"] == swept.result["best"]["number"]
    assert all(path.stat().st_size > 5000 for path in (folder / "plots").iterdir())
    ended = command("run", folder / RECIPE, "--dry-run", "--json")
    assert ended.status == 0
    assert {stage["state"] for stage in json.loads(ended.out)["stages"]} == {"in the store"}
    methods = [method["method"] for method in swept.result["final"]["verdict"]["methods"]]
    assert methods == ["finetune", "knife"]


def test_progress_in_plain_lines(swept: Swept) -> None:
    lines = swept.ended.err.splitlines()
    assert lines[0].startswith("4 trials, ")
    assert "1 distinct teacher;" in lines[0]
    assert lines[1] == lines[-1] == f"MLflow: knife ui --store {swept.store.root}"
    search = [line for line in lines if "] trial " in line]
    assert [line[:5] for line in search] == [f"[{number}/4]" for number in range(1, 5)]
    (pruned,) = [line for line in search if f"trial {PRUNED}: " in line]
    assert "(pruned)" in pruned
    assert "Traceback" not in swept.ended.err


def test_the_same_command_again_says_that_it_is_done(swept: Swept, command: Command) -> None:
    store = swept.folder.parents[1]
    before = snapshot(store)
    for words in ([], ["--resume"]):
        ended = command("tune", swept.path, "--json", *words)
        assert ended.status == 0
        assert json.loads(ended.out) == swept.result
        assert ended.err.splitlines()[0] == "the sweep is done: nothing was trained"
    ended = command("tune", swept.path, "--dry-run", "--json")
    assert json.loads(ended.out)["state"] == "done"
    assert "trial" in command("tune", swept.path).out
    assert snapshot(store) == before


def test_another_sweep_or_version_in_its_folder_is_refused(
    swept: Swept, command: Command, tmp_path: Path
) -> None:
    copy = tmp_path / "store"
    (copy / "sweeps" / "small").mkdir(parents=True)
    about = shutil.copy(swept.folder / "sweep.json", copy / "sweeps" / "small")
    for words in ([], ["--resume"], ["--dry-run"]):
        (error,) = command("tune", swept.path, f"store={copy}", "seed=1", *words).errors
        assert error.startswith(f"{copy}/sweeps/small belongs to another sweep of that name")
        assert "give another name=…" in error
    values = json.loads(Path(about).read_text())
    Path(about).write_text(json.dumps(values | {"version": 0}))
    (error,) = command("tune", swept.path, f"store={copy}", "--resume").errors
    assert error.startswith(f"{copy}/sweeps/small was made by another version of this package")


def test_nothing_to_resume(command: Command, tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    (error,) = command("tune", path, "--resume").errors
    store = tmp_path / "store"
    assert error.startswith(f"--resume: the store {store} does not exist (small), so there is")
    assert not (store / "sweeps").exists()
    (store / "sweeps").mkdir(parents=True)
    (error,) = command("tune", path, "--resume").errors
    assert error.startswith(f"--resume: the store {store} has no sweep of that name (small)")


def test_a_sweep_that_another_process_runs_is_left_to_it(command: Command, tmp_path: Path) -> None:
    path = write_sweep(tmp_path)
    with Store(tmp_path / "store").lock("sweep", "small"):
        (error,) = command("tune", path).errors
    assert error.startswith("name: another process is running the sweep 'small' on this store")
    assert not (tmp_path / "store" / "sweeps").exists()


def test_more_workers_than_the_machine_has_are_refused(command: Command, tmp_path: Path) -> None:
    batches = [f"{role}.batch_size=1000" for role in ("teacher", "student")]
    (error,) = command("tune", write_sweep(tmp_path), "scale.workers=1000", *batches).errors
    assert error.startswith("scale.workers: 1000 workers need a CPU each, but this machine has")
    assert not (tmp_path / "store" / "sweeps").exists()


def test_more_trials_than_a_sweep_was_begun_with_keep_the_earlier_ones(
    swept: Swept, tmp_path: Path, tune_here: Tune
) -> None:
    """From four to five, on a copy of the store: one is trained, and the sweep concludes anew."""
    store = tmp_path / "store"
    shutil.copytree(swept.store.root, store, symlinks=True)
    folder = store / "sweeps" / "small"
    path = tmp_path / "sweep.yaml"
    for name in ("sweep.yaml", "base.yaml"):
        shutil.copy(swept.path.parent / name, tmp_path)
    # The base names the store: there the sweep is the same one under another key.
    about = json.loads((folder / "sweep.json").read_text())
    key = sweep_key(plan_file(path, [f"store={store}"]))
    (folder / "sweep.json").write_text(json.dumps(about | {"key": key}))
    fewer = tune_here(path, f"store={store}", "budget.trials=2", "--json")
    assert fewer.status == 0, fewer.err
    assert "warning: budget.trials: 2 are fewer than the 4 that have already ended" in fewer.err
    assert set(trainings(tmp_path)) == set()
    more = tune_here(path, f"store={store}", "budget.trials=5", "--json")
    assert more.status == 0, more.err
    rows = {row["number"]: row for row in json.loads((folder / "trials.json").read_text())}
    assert list(rows) == [1, 2, 3, 4, 5]
    searched = json.loads((swept.folder / "search.json").read_text())
    again = json.loads((folder / "search.json").read_text())
    # Points, scores, states and times of the earlier trials are as they were.
    assert again[:4] == searched
    assert sum(name.startswith("student-") for name in trainings(tmp_path)) >= 1
    assert set(swept.rows) < set(rows)
    result = json.loads(more.out)
    assert sum(result["states"].values()) == 5
    assert result["final"]["verdict"]["methods"]
    done = tune_here(path, f"store={store}", "budget.trials=5")
    assert "the sweep is done: nothing was trained" in done.err


def test_a_trial_that_always_fails_does_not_end_the_sweep(tmp_path: Path, tune_here: Tune) -> None:
    """At 1e30 the training diverges; the other trial is what optuna suggests beside it."""
    found = sweep(
        tmp_path,
        by=tune_here,
        search="tpe",
        space={RATE: {"choice": [3e-3, 1e30]}},
        first=[{RATE: 1e30}, {RATE: 3e-3}],
        budget={"trials": 3},
        set={"student.clip": 1e30, "methods": ["finetune"]},
        final=None,
    )
    assert found.ended.status == 0, found.ended.err
    rows = found.rows
    assert list(rows) == [1, 2, 3]
    assert (rows[1]["state"], rows[1]["score"]) == ("failed", None)
    assert rows[1]["error"].startswith("finetune seed 0: the ")
    assert rows[2]["state"] == "finished"
    assert found.result["best"]["number"] == 2
    assert f"warning: trial 1 failed: {rows[1]['error']}" in found.ended.err.splitlines()
    # It is also reported when it happens.
    error = re.escape(rows[1]["error"])
    assert re.search(rf"trial 1: failed in \d+ (s|min), {error} ", found.ended.err)
    _, trials = found.tracked()
    statuses = {name: run.info.status for name, run in trials.items()}
    assert (statuses["trial 1"], statuses["trial 2"]) == ("FAILED", "FINISHED")
    assert trials["trial 1"].data.tags["knife.status"] == "failed"
    # Our own errors recur every time: what failed is not tried again, in no other trial either.
    assert set(trainings(tmp_path).values()) == {1}


def test_when_every_trial_fails_the_sweep_does(tmp_path: Path, tune_here: Tune) -> None:
    found = sweep(
        tmp_path,
        by=tune_here,
        space={RATE: {"choice": [1e30, 1e31]}},
        first=[{RATE: 1e30}, {RATE: 1e31}],
        budget={"trials": 2},
        # With more than one step, training diverges in the first epoch, before there is any score.
        set={"student.clip": 1e30, "student.batch_size": 4, "methods": ["finetune"]},
    )
    assert found.ended.status == 1
    assert found.ended.out == ""
    assert "none of 2 trials succeeded: finetune seed 0: the " in found.ended.err
    assert "Traceback" not in found.ended.err
    assert "ray" not in found.ended.err
    # A line before the trials, one per trial, why none is left, and what to do.
    assert sum(" failed in " in line for line in found.ended.err.splitlines()) == 2
    assert found.ended.err.splitlines()[-1].startswith("failed trials are not tried again: change")
    client = MlflowClient(f"sqlite:///{found.store.root}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "knife"]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 5
    assert {run.info.status for run in runs} == {"FAILED"}
    again = tune_here(found.path, "--resume")
    assert again.status == 1
    assert "none of 2 trials succeeded: finetune seed 0: the " in again.err
    assert set(trainings(tmp_path).values()) == {1}
