"""The report of a run: the numbers of its verdict, and what it says if something is missing."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_fixtures import Command, FinishedRun
from page_text import section

from knife.data.examples import Examples
from knife.report.run_data import stage_seconds
from knife.report.run_page import NAME, run_report
from knife.store.store import Store
from knife.train.journal import Row


@pytest.fixture
def folder(finished_run: FinishedRun, tmp_path: Path) -> Path:
    """Return a copy of a finished run's folder, within a copy of its store."""
    shutil.copytree(finished_run.store, tmp_path / "store")
    (folder,) = (tmp_path / "store" / "runs").iterdir()
    return folder


def report(folder: Path) -> str:
    return run_report(folder, Store(folder.parents[1], write=False))


def values(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_run_leaves_its_report_in_its_folder_and_in_mlflow(finished_run: FinishedRun) -> None:
    (folder,) = (finished_run.store / "runs").iterdir()
    html = (folder / NAME).read_text()
    assert html == report(folder)
    # Other tests have added artifacts to the store.
    run = finished_run.result["mlflow"]["run_id"]
    (tracked,) = (finished_run.store / "mlartifacts").glob(f"*/{run}/artifacts/{NAME}")
    assert tracked.read_text() == html


def test_the_methods_are_those_of_the_verdict(folder: Path) -> None:
    html, verdict = report(folder), values(folder / "verdict.json")
    text = section(html, "Methods")
    finetune, knife = verdict["methods"]
    # With one seed, the interval is over examples only.
    for method in (finetune, knife):
        mean, low, high = (f"{100 * method[name]:.1f}" for name in ("accuracy", "low", "high"))
        assert f"{method['method']} 1 {mean} {low} to {high}" in text
    difference = knife["difference"]
    assert f"{difference['points']:+.1f} {difference['low']:+.1f} to" in text
    assert f" {difference['gained']} {difference['lost']} teacher, with" in text
    for share in verdict["ceiling"].values():
        assert f" 1 {100 * share:.1f} " in text


def test_states_of_one_pass_share_its_time() -> None:
    def rows(**metrics: float) -> list[Row]:
        return [{"step": step, "time": 10.0 + step, "metrics": metrics} for step in range(7)]

    assert stage_seconds(rows(sharing=3), {}) == 2.0
    assert stage_seconds(rows(), {}) == 6.0
    assert stage_seconds([], {}) == 0.0


def test_no_other_file_is_needed(folder: Path) -> None:
    html = report(folder)
    assert "<script" not in html
    assert not re.search(r"""(src|href)=["'](?!#)""", html.replace("xlink:href", "href"))
    assert not re.search(r"url\((?!#)", html)
    names = re.findall(r'\bid="([^"]+)"', html)
    assert len(set(names)) == len(names)
    assert html.count('role="img" aria-label="') == html.count("<svg ") == 5


def test_texts_of_examples_are_escaped(folder: Path) -> None:
    (path,) = (folder.parents[1] / "data").glob("*/test.arrow")
    first, *others = Examples.parse(path.read_bytes())
    example = replace(first, question="<script>alert('a & b')</script>")
    Examples.of([example, *others]).write(path)
    verdict = values(folder / "verdict.json")
    verdict["methods"][1]["difference"]["gained_ids"] = [example.id]
    (folder / "verdict.json").write_text(json.dumps(verdict))
    html = report(folder)
    assert "<script" not in html
    assert "<summary>&lt;script&gt;alert(&#39;a &amp; b&#39;)&lt;/script&gt;</summary>" in html
    assert f"rationale {example.rationale}" in section(html, "Answers gained and lost")


def test_a_run_that_goes_on_is_reported_so_far(folder: Path) -> None:
    store = folder.parents[1]
    (folder / "verdict.json").unlink()
    record = values(folder / "run.json")
    record["starts"][-1] |= {"ended": None, "status": "killed"}
    (folder / "run.json").write_text(json.dumps(record))
    total = len(record["stages"])
    knife = next(m for m in record["members"] if m["method"] == "knife")
    shutil.rmtree(store / "evaluate" / knife["evaluate"])
    html = report(folder)
    assert f"So far: {total - 1} of {total} stages done." in html
    assert "finetune answers" in html
    assert "No method was compared" in section(html, "Answers gained and lost")
    assert " running, or killed " in section(html, "Failures and restarts")
    for kind in ("evaluate", "student", "teacher"):
        shutil.rmtree(store / kind)
    html = report(folder)
    assert "No student has been evaluated yet." in section(html, "Methods")
    assert "No training has started yet." in section(html, "Learning curves")


def test_a_run_that_was_cut_off_says_by_what(folder: Path) -> None:
    (folder / "verdict.json").unlink()
    record = values(folder / "run.json")
    record["starts"][-1]["status"] = "failed: <b>no room</b>"
    (folder / "run.json").write_text(json.dumps(record))
    html = report(folder)
    words = "The last start failed: &lt;b&gt;no room&lt;/b&gt;; run the same command again"
    assert words in html


def test_damaged_lines_of_a_journal_are_left_out(folder: Path) -> None:
    expected = report(folder)
    (path,) = (folder.parents[1] / "teacher").glob("*/journal.jsonl")
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, first[:9], b"\xff\n12\n", *others]))
    assert report(folder) == expected


def test_a_report_that_cannot_be_made_fails_no_run(
    command: Command,
    finished_run: FinishedRun,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, verdict = folder.parents[1], values(folder / "verdict.json")
    (folder / "verdict.json").unlink()
    (folder / "rationale_scores.json").write_text('{"rq": 0.')
    shutil.rmtree(next((store / "evaluate").iterdir()))
    ended = command("run", finished_run.config, f"store={store}")
    assert ended.status == 0, ended.err
    assert values(folder / "verdict.json") == verdict
    start = values(folder / "run.json")["starts"][-1]
    assert (start["status"], len(start["made"])) == ("finished", 1)
    # The old page would belong to an earlier start.
    assert not (folder / NAME).exists()
    (warning,) = [each.getMessage() for each in caplog.records if each.name.startswith("knife.rep")]
    assert warning.startswith("the report could not be written (JSONDecodeError: ")
    advice = f"all results are kept; to write it: knife report {folder.name} --store {store}"
    assert warning.endswith(advice)
    (folder / "rationale_scores.json").unlink()
    assert command("report", folder).out == f"{folder / NAME}\n"


def test_a_start_with_nothing_to_do_leaves_the_report(
    command: Command, finished_run: FinishedRun, folder: Path
) -> None:
    left = [folder / NAME, folder / "run.json"]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in left]
    ended = command("run", finished_run.config, f"store={folder.parents[1]}")
    assert ended.status == 0, ended.err
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in left] == before


def test_what_was_deleted_is_said(folder: Path) -> None:
    for kind in ("data", "student", "evaluate"):
        shutil.rmtree(folder.parents[1] / kind)
    html = report(folder)
    assert "are no longer in the store" in section(html, "Answers gained and lost")
    assert "has no student of this run" in section(html, "Alignment of states")
    assert "knife seed 0 missing" in section(html, "Cost")
    shutil.rmtree(folder.parents[1] / "teacher")
    assert "are no longer in the store" in section(report(folder), "Learning curves")


def test_a_run_without_a_record_has_its_verdict(folder: Path) -> None:
    (folder / "run.json").unlink()
    html = report(folder)
    assert "knife 1 " in section(html, "Methods")
    for title in ("Answers gained and lost", "Learning curves", "Cost", "Failures and restarts"):
        assert "kept no record of its stages" in section(html, title)


def test_what_is_being_made_has_begun(folder: Path) -> None:
    record = values(folder / "run.json")
    place = folder.parents[1] / "teacher" / record["teacher"]
    (folder.parents[1] / "work").mkdir(exist_ok=True)
    place.rename(folder.parents[1] / "work" / f"teacher-{place.name}")
    (folder.parents[1] / "work" / f"teacher-{place.name}" / "manifest.json").unlink()
    assert " teacher begun " in section(report(folder), "Cost")


def test_starts_and_restarts_are_told(folder: Path) -> None:
    record = values(folder / "run.json")
    first = record["starts"][0]
    record["starts"] = [first | {"ended": None, "status": "killed"}, first]
    (folder / "run.json").write_text(json.dumps(record))
    path = folder.parents[1] / "teacher" / record["teacher"] / "trained.json"
    path.write_text(json.dumps(values(path) | {"resumed": [2, 3]}))
    text = section(report(folder), "Failures and restarts")
    assert re.search(rf"killed {len(first['made'])} .* finished", text)
    assert "teacher: resumed from the checkpoint of step 2" in text
    assert "step 3" in text


def test_the_command_finds_a_run_by_name_and_by_folder(
    command: Command, folder: Path, tmp_path: Path
) -> None:
    store = folder.parents[1]
    (folder / NAME).unlink()
    by_name = command("report", "small", "--store", store)
    assert by_name.status == 0, by_name.err
    assert by_name.out == f"{folder / NAME}\n"
    assert (folder / NAME).read_text() == report(folder)
    elsewhere = command("report", folder, "--out", tmp_path / "here.html")
    assert elsewhere.out == f"{tmp_path / 'here.html'}\n"
    assert command("report", "smal", "--store", store).errors == [
        f"TARGET: the store {store} has no run or sweep 'smal'; did you mean 'small'? (newest "
        "first: small), or give the folder of one"
    ]
    assert command("report", "small", "--store", tmp_path / "none").errors == [
        f"TARGET: the store {tmp_path / 'none'} has no run or sweep; give another with --store"
    ]
    # The newest run of a name is the one that started last, not the one with the newest page.
    older = shutil.copytree(folder, folder.with_name("small-0"))
    record = values(older / "run.json")
    record["starts"][-1]["time"] -= 60
    (older / "run.json").write_text(json.dumps(record))
    assert command("report", "small-0", "--store", store).out == f"{older / NAME}\n"
    assert command("report", "small", "--store", store).out == f"{folder / NAME}\n"
    (older / "config.json").unlink()
    assert command("report", older).errors == [
        f"{older} has no config.json; run the same `knife run` again to write it"
    ]
    missing = tmp_path / "no" / "here.html"
    assert command("report", folder, "--out", missing).errors == [
        f"--out: the folder {missing.parent} does not exist; create it first"
    ]
