"""The report of a sweep: the numbers of its table, and what it says if something is missing."""

import csv
import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import NEEDED, assert_all_is_seen
from command_fixtures import Command
from made_up import LOW_RESOURCE, a_row, a_space, grid_rows
from page_text import section
from small_sweep import PRUNED, Swept

from knife.core.errors import UserError
from knife.report.run_page import NAME
from knife.report.run_training import duration
from knife.report.slots import SLOTS
from knife.store.store import Store
from knife.tune.report.data import SweepData
from knife.tune.report.measured import Measured
from knife.tune.report.outputs import write_outputs
from knife.tune.report.report import report_of, sweep_report
from knife.tune.search.space import Space
from knife.tune.search.trials import TrialRow


@pytest.fixture
def folder(swept: Swept, tmp_path: Path) -> Path:
    """Return a copy of a finished sweep's folder, within a copy of its store."""
    ignored = shutil.ignore_patterns("ray-*", "mlflow.db", "mlartifacts")
    shutil.copytree(swept.store.root, tmp_path / "store", ignore=ignored)
    return tmp_path / "store" / "sweeps" / swept.folder.name


def report(folder: Path) -> str:
    return sweep_report(folder, Store(folder.parents[1], write=False))


def values(path: Path) -> Any:
    return json.loads(path.read_text())


def made_up(space: Space, rows: list[TrialRow], folder: Path) -> str:
    """Return the report of synthetic trials."""
    start = {"time": 0.0, "ended": None, "status": "killed", "command": "knife tune x"}
    about: dict[str, Any] = {
        "sweep": space.sweep.model_dump(mode="json"),
        "base": space.base,
        "key": "",
        "git": {},
    }
    about |= {"starts": [start], "versions": {}}
    (folder / "sweeps" / "x").mkdir(parents=True)
    store = Store(folder, write=False)
    return report_of(SweepData(folder / "sweeps" / "x", store, about, rows, None))


def test_a_sweep_leaves_its_report_in_its_folder_and_in_mlflow(swept: Swept) -> None:
    html = (swept.folder / NAME).read_text()
    assert html == report(swept.folder)
    # The winner against finetune is a run, with its own report.
    runs = [swept.result["mlflow"]["run_id"], swept.result["final"]["mlflow"]["run_id"]]
    tracked = [
        path.read_text()
        for run in runs
        for path in (swept.store.root / "mlartifacts").glob(f"*/{run}/artifacts/{NAME}")
    ]
    assert len(tracked) == 2
    assert tracked[0] == html != tracked[1]


def test_the_trials_are_those_of_the_table(swept: Swept) -> None:
    html = (swept.folder / NAME).read_text()
    text = section(html, "Trials")
    with (swept.folder / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        score, sd = float(row["dev_loss"]), row["sd"]
        spread = f" ± {float(sd):.4f} 2" if sd else ""
        rate = f"{float(row['student.learning_rate']):.4g}"
        assert f" {row['number']} {score:.4f}{spread}" in f" {text}"
        assert f" {row['state']} " in text
        assert f" {rate} {row['align.input.weight']} " in f"{text} "
    best = swept.result["best"]
    assert f"The winner is trial {best['number']} of 4: dev loss {best['score']:.4f}" in html
    assert "mean of 2 seeds" in html


def test_the_final_comparison_is_that_of_the_verdict(swept: Swept) -> None:
    text = section((swept.folder / NAME).read_text(), "Final comparison")
    for method in swept.result["final"]["verdict"]["methods"]:
        mean, low, high = (f"{100 * method[name]:.1f}" for name in ("accuracy", "low", "high"))
        assert f"{method['method']} 1 {mean} {low} to {high}" in text
    for student in swept.result["final"]["students"]:
        assert student["folder"] in text


def test_the_shared_teacher_is_told(swept: Swept) -> None:
    text = section((swept.folder / NAME).read_text(), "Cost and sharing")
    trials = values(swept.folder / "sweep.json")["trials"]
    assert sorted(trials) == ["1", "2", "3", "4"]
    (teacher,) = (swept.store.root / "teacher").iterdir()
    seconds = values(teacher / "trained.json")["seconds"]
    assert f"teacher {teacher.name} {duration(seconds)} 4 {duration(3 * seconds)}" in text
    (states,) = (swept.store.root / "states").iterdir()
    assert f"states {states.name} " in text
    # How many are pruned depends on which trial is ahead.
    pruned = sum(row["state"] == "pruned" for row in swept.rows.values())
    assert f"trials, pruned {pruned} " in text
    assert "settings of finetune 2 " in text
    assert "winner and finetune 2 " in text


def test_what_each_slot_made(swept: Swept) -> None:
    """Every stage of every trial, once, and nothing of the final run, which has its own report."""
    rows = [json.loads(line) for line in (swept.folder / SLOTS).read_text().splitlines()]
    made = [key for row in rows for key in row["keys"] if row["made"]]
    (teacher,) = (swept.store.root / "teacher").iterdir()
    students = {key for row in swept.rows.values() if row["state"] == "finished"
                for key in row["students"].values()}  # fmt: skip
    assert {teacher.name} | students <= set(made)
    assert len(made) == len(set(made))
    # Seeds and baseline are made after the search, in the same slots.
    assert len([row for row in rows if row["kind"] == "student" and row["made"]]) > len(students)
    pruned = {key for row in swept.rows.values() if row["state"] == "pruned"
              for key in row["students"].values()}  # fmt: skip
    assert not pruned & set(made)
    assert re.search(r"slots? in \d+ s, of which \d+% idle", section(report(swept.folder), "Slots"))


def test_what_ended_early_and_how_to_do_it_again(swept: Swept) -> None:
    html = (swept.folder / NAME).read_text()
    text = section(html, "Pruned and failed trials")
    score = swept.rows[PRUNED]["score"]
    assert f" {PRUNED} pruned 1 {score:.4f} not among the best 1/2 at this epoch" in f" {text}"
    assert " finished " in section(html, "Failures and restarts")
    text = section(html, "How to reproduce it")
    assert "knife tune small.yaml" in text
    assert swept.folder.name in text
    assert f"started as knife tune {swept.path} --json" in text
    listed = html.partition("<summary>small.yaml</summary><pre>")[2].partition("</pre>")[0]
    again = yaml.safe_load(unescape(listed))
    original = yaml.safe_load(swept.path.read_text())
    assert again["first"] == original["first"]
    assert {"scheduler", "seeds", "space", "metric", "budget"} <= set(again)


def test_no_other_file_is_needed(swept: Swept) -> None:
    html = (swept.folder / NAME).read_text()
    assert "<script" not in html
    assert not re.search(r"""(src|href)=["'](?!#|data:image)""", html.replace("xlink:href", "href"))
    assert not re.search(r"url\((?!#)", html)
    names = re.findall(r'\bid="([^"]+)"', html)
    assert len(set(names)) == len(names)
    assert html.count('role="img" aria-label="') == html.count("<svg ")


def test_a_sweep_that_goes_on_is_reported_so_far(folder: Path) -> None:
    for name in ("result.json", "trials.json"):
        (folder / name).unlink()
    assert "So far: 4 trials ended, the search is done, the phases after it are not." in report(
        folder
    )
    for name in ("search.json", "seeds.json", "baseline.json", "final.json"):
        (folder / name).unlink()
    rows = {row.number: row for row in SweepData.read(folder, Store(folder.parents[1])).rows}
    assert sorted(rows) == [1, 2, 3, 4]
    assert rows[PRUNED].state == "pruned"
    assert rows[1].state == "finished"
    assert sorted(rows[1].by_epoch) == [1, 2]
    # The second trial has only begun.
    history = folder / "search" / "history.jsonl"
    lines = history.read_text().splitlines(keepends=True)
    history.write_text("".join(n for n in lines if '"trial": "2-' not in n or '"params"' in n))
    html = report(folder)
    assert "So far: 3 trials ended, 1 running." in html
    assert "The best is trial 1 of 3: dev loss " in html
    assert "has not been compared with finetune" in section(html, "Final comparison")
    shutil.rmtree(folder / "search")
    html = report(folder)
    assert "No trial has finished yet." in html
    for title in ("Trials", "Cost and sharing"):
        assert "No trial has ended yet." in section(html, title)


def test_what_was_deleted_is_said(folder: Path) -> None:
    for kind in ("teacher", "states", "student", "evaluate", "data", "runs"):
        shutil.rmtree(folder.parents[1] / kind)
    (folder / "best.yaml").unlink()
    html = report(folder)
    text = section(html, "Cost and sharing")
    assert "no longer has the times of 2 of them" in text
    assert "knife is " in html or "finetune answers" in html


def test_restarts_are_told(folder: Path) -> None:
    about = values(folder / "sweep.json")
    first = about["starts"][0]
    about["starts"] = [first | {"ended": None, "status": "killed"}, first]
    about["trials"]["2"]["starts"].append(86400.0)
    (folder / "sweep.json").write_text(json.dumps(about))
    row = values(folder / "trials.json")[0]
    (key,) = list(row["students"].values())[:1]
    path = folder.parents[1] / "student" / key / "trained.json"
    path.write_text(json.dumps(values(path) | {"resumed": [7]}))
    (teacher,) = (folder.parents[1] / "teacher").iterdir()
    for stage in (path.parent, teacher):
        note = {"step": 3, "time": 0.0, "metrics": {}, "note": f"{stage.parent.name} is damaged"}
        with (stage / "journal.jsonl").open("a") as file:
            file.write(json.dumps(note) + "\n")
    text = section(report(folder), "Failures and restarts")
    assert re.search("killed .* finished", text)
    assert "1970-01-02 00:00:00 UTC trial 2 restarted" in text
    assert f"trial {row['number']}, seed 0: resumed from the checkpoint of step 7" in text
    # What several trials share is reported once.
    assert text.count("is damaged") == 2
    assert f"1970-01-01 00:00:00 UTC trial {row['number']}, seed 0, step 3: student is" in text
    assert f"1970-01-01 00:00:00 UTC teacher {teacher.name}, step 3: teacher is damaged" in text


def test_a_sweep_of_an_earlier_version_gets_its_report(
    swept: Swept, folder: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    about = values(folder / "sweep.json")
    (folder / "sweep.json").write_text(json.dumps(about | {"version": 2}))
    with pytest.raises(UserError, match=r"another version of this package \(sweeps of version 2, "):
        report(folder)
    kept = {name: about[name] for name in ("version", "key", "name")}
    (folder / "sweep.json").write_text(json.dumps(kept))
    (folder / NAME).unlink()
    with pytest.raises(UserError, match="did not keep the sweep's settings; run the"):
        report(folder)
    shutil.copy(swept.path.parent / "base.yaml", folder.parents[2])
    sweep = shutil.copy(swept.path, folder.parents[2])
    # The store is part of the sweep's fingerprint, which differs for the copy.
    (folder / "sweep.json").write_text(json.dumps(kept | {"key": _key(Path(sweep), folder)}))
    recipe = shutil.copy(folder / "best.yaml", folder.parents[2])
    (folder / "best.yaml").write_bytes(b"\xff")
    done = command("tune", sweep, f"store={folder.parents[1]}")
    assert done.status == 0, done.err
    assert "report: " not in done.err
    assert not (folder / NAME).exists()
    (warning,) = [each.getMessage() for each in caplog.records if each.name.startswith("knife.rep")]
    assert warning.startswith("the report could not be written (UnicodeDecodeError: ")
    assert warning.endswith(f"knife report small --store {folder.parents[1]}")
    shutil.copy(recipe, folder)
    done = command("tune", sweep, f"store={folder.parents[1]}")
    assert done.status == 0, done.err
    assert "nothing was trained" in done.err
    text = section((folder / NAME).read_text(), "Cost and sharing")
    assert "No trial is known to have shared" in text
    assert len(values(folder / "sweep.json")["starts"]) == 1


def _key(path: Path, folder: Path) -> str:
    from knife.tune.command import plan_file
    from knife.tune.sweep import sweep_key

    return sweep_key(plan_file(path, [f"store={folder.parents[1]}"]))


def test_the_command_finds_a_sweep(command: Command, folder: Path, tmp_path: Path) -> None:
    expected = report(folder)
    (folder / NAME).unlink()
    store = folder.parents[1]
    found = command("report", "small", "--store", store)
    assert found.status == 0, found.err
    assert found.out == f"{folder / NAME}\n"
    assert (folder / NAME).read_text() == expected
    elsewhere = command("report", folder, "--out", tmp_path / "here.html")
    assert elsewhere.out == f"{tmp_path / 'here.html'}\n"


def test_low_resource_curves_have_the_numbers_of_the_estimates(tmp_path: Path) -> None:
    rows = grid_rows(LOW_RESOURCE)
    text = section(made_up(LOW_RESOURCE, rows, tmp_path), "Low-resource curves")
    measured = Measured.of(LOW_RESOURCE, rows)
    for row in rows:
        found = measured.estimate(row)
        span = f"{found.mean:.1f} {found.low:.1f} to {found.high:.1f} {row.number}"
        assert f" {100 * row.point['data.fraction']:g} " in text
        assert span in text


def test_texts_are_escaped(tmp_path: Path) -> None:
    bad = "<script>alert('a & b')</script> $\\frac{$"
    space = a_space({"data.source": {"grid": [bad, "creatures"]}}, search="grid")
    rows = [
        a_row(1, {"data.source": bad}),
        a_row(2, {"data.source": "creatures"}, 0.6),
        TrialRow(3, {"data.source": bad}, "failed", None, 1.0, error=f"{bad}\nmore"),
    ]
    html = made_up(space, rows, tmp_path)
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#39;a &amp; b&#39;)&lt;/script&gt; $\\frac{$" in html
    assert write_outputs(space, rows, tmp_path)[-1].suffix == ".png"


@NEEDED
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_cut_in_a_browser(tmp_path: Path, width: int) -> None:
    html = made_up(LOW_RESOURCE, grid_rows(LOW_RESOURCE), tmp_path)
    assert_all_is_seen(html, tmp_path, width)
