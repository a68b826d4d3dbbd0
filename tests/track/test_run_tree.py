"""What MLflow has to show of a run is made from the store alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_fixtures import FinishedRun
from mlflow import MlflowClient
from recorded import points
from recorded import run_tree as recorded_runs
from small_run import silent, small_config

from knife.pipeline.run import run
from knife.store.store import Store
from knife.track.node import RunNode
from knife.track.run_tree import NOTE, run_tree

STUDENTS = ("finetune seed 0", "knife seed 0")


@pytest.fixture
def folder(finished_run: FinishedRun, tmp_path: Path) -> Path:
    """The folder of a finished run, in a copy of its store."""
    shutil.copytree(finished_run.store, tmp_path / "store", symlinks=True)
    (found,) = (tmp_path / "store" / "runs").iterdir()
    return found


def tree(folder: Path, *, alive: bool = False) -> RunNode:
    found = run_tree(folder, Store(folder.parents[1]), alive=alive)
    assert found
    return found


def change_last_start(folder: Path, **values: Any) -> None:
    record = json.loads((folder / "run.json").read_text())
    record["starts"][-1] |= values
    (folder / "run.json").write_text(json.dumps(record))


def statuses(root: RunNode) -> dict[str, str]:
    return {node.name: node.status for _, node in root.walk()}


def test_a_finished_run_has_results_files_and_models(folder: Path) -> None:
    root = tree(folder)
    assert set(statuses(root).values()) == {"FINISHED"}
    assert [child.name for child in root.children] == ["teacher", *STUDENTS]
    assert {path.rpartition("/")[2] for path in root.files} == {"verdict.json", "report.html"}
    assert {"test_accuracy.knife", "p.knife"} <= root.summary.keys()
    assert root.tags["knife.champion"] in STUDENTS
    assert "Student to use" in root.tags[NOTE]
    config = yaml.safe_load(root.texts["config.yaml"])
    assert config == json.loads((folder / "config.json").read_text())
    teacher, *students = root.children
    assert "test_accuracy_with_rationale" in teacher.summary
    for student in students:
        assert student.model
        assert (folder.parents[1] / student.model).is_dir()
        assert student.ended
        assert root.began <= student.ended <= (root.ended or 0)
    # The teacher's summary is its own: what is added to it is in no cache.
    assert tree(folder) == root


@pytest.mark.parametrize(
    ("start", "status"),
    [
        ({"status": "failed: no", "reason": "line 1\n```html\n"}, "FAILED"),
        ({"status": "stopped", "reason": "KeyboardInterrupt"}, "KILLED"),
        ({"status": "killed", "ended": None}, "KILLED"),
    ],
    ids=["failed", "stopped", "killed"],
)
def test_a_run_that_was_cut_off_ends_what_it_had_begun(
    folder: Path, start: dict[str, Any], status: str
) -> None:
    change_last_start(folder, **start)
    store = folder.parents[1]
    record = json.loads((folder / "run.json").read_text())
    knife = record["members"][-1]
    work = store / "work" / f"evaluate-{knife['evaluate']}"
    (store / "evaluate" / knife["evaluate"]).rename(work)
    root = tree(folder)
    expected = {"small": status, "teacher": "FINISHED", STUDENTS[0]: "FINISHED"}
    assert statuses(root) == expected | {STUDENTS[1]: status}
    assert root.children[-1].ended == root.ended
    assert not any(node.files or node.model for _, node in root.walk())
    last = json.loads((work / "journal.jsonl").read_text().splitlines()[-1])["time"]
    if start.get("ended", 0) is None:
        # The last thing that anything is known of.
        assert root.ended == last
        assert set(statuses(tree(folder, alive=True)).values()) == {"RUNNING", "FINISHED"}
    if status == "FAILED":
        assert root.tags[NOTE].endswith("```text\nline 1\n'''html\n```")
    else:
        assert root.tags[NOTE].startswith("Running or interrupted: finetune, knife on creatures")


def test_a_record_of_an_earlier_version_says_too_little(folder: Path) -> None:
    record = json.loads((folder / "run.json").read_text())
    del record["params"]
    (folder / "run.json").write_text(json.dumps(record))
    assert run_tree(folder, Store(folder.parents[1]), alive=False) is None


def test_a_finished_run_can_be_sent_to_any_mlflow(
    finished_run: FinishedRun, folder: Path, tmp_path: Path
) -> None:
    """Started again with another address, it trains nothing, and everything is there."""
    store = folder.parents[1]
    before = finished_run.result["mlflow"]
    track = {"uri": f"sqlite:///{tmp_path}/other.db"}
    config = small_config(store, methods=["finetune", "knife"], track=track)
    again = run(config, silent)
    assert (again.made, again.unsent) == ([], [])
    assert again.tracking
    assert again.tracking[1]
    there = recorded_runs(before["uri"], before["run_id"])
    here = recorded_runs(track["uri"], again.tracking[1])
    assert there[1].keys() == here[1].keys()
    pairs = [(there[0], here[0]), *((old, here[1][name]) for name, old in there[1].items())]
    for old, new in pairs:
        # Machine metrics of the first start are in the store as well.
        assert points(before["uri"], old) == points(track["uri"], new)
        assert old.data.params == new.data.params
        assert old.info.status == new.info.status
    assert len(MlflowClient(track["uri"]).search_logged_models(["1"])) == len(STUDENTS)


_WITHOUT = """
import sys
from small_run import silent, small_config
from knife.pipeline.run import run
result = run(small_config(sys.argv[1], methods=["finetune"], track=None), silent)
assert result.tracking is None and result.links == [], result
assert result.to_dict()["mlflow"] is None
assert "mlflow" not in sys.modules
"""


def test_without_tracking_a_run_does_not_import_mlflow(tmp_path: Path) -> None:
    paths = [str(Path(__file__).parents[number]) for number in (1, 2)]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "mlflow.db").exists()
    assert list((tmp_path / "runs").glob("*/verdict.json"))
