"""`knife data write`, against a real server of facts: what is written, kept, told and refused."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from command_fixtures import Command, FinishedRun, finish_here
from facts import KEY, Facts, facts_server, free_port, questions
from small_run import SMALL
from yaml import safe_dump

from knife.config.overrides import merge
from knife.config.run import Data
from knife.config.write import Write
from knife.data.jsonl import read_examples
from knife.data.source import load_source
from knife.report.run_data import RunData
from knife.report.run_page import run_report
from knife.store.store import Store
from knife.writing.job import plan_job
from knife.writing.write import write

NOTHING = "write.given=nothing"


@pytest.fixture(scope="module")
def facts() -> Iterator[Facts]:
    """Serve true facts."""
    with facts_server() as server:
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return questions(tmp_path / "questions", 60)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "written" / "record.json").read_text())
    return found


def test_a_table_without_rationales_gets_them(
    command: Command, facts: Facts, source: Path, tmp_path: Path
) -> None:
    table = tmp_path / "quiz.csv"
    with table.open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "yes", "no", "answer"])
        for row in rows(source / "train.jsonl"):
            writer.writerow([row["question"], "yes", "no", row["answer"]])
    out = tmp_path / "out"
    words = ["data.columns.choices=[yes, no]", "write.splits=[train,dev]"]
    ended = command("data", "write", table, "--out", out, *words, *facts.words)
    assert ended.status == 0
    splits = {name: read_examples(out / f"{name}.jsonl") for name in ("train", "dev", "test")}
    assert {name: len(some) for name, some in splits.items()} == {"train": 42, "dev": 6, "test": 12}
    assert all(each.rationale for name in ("train", "dev") for each in splits[name])
    # No rationale is written for what a student is tested on.
    assert not any(each.rationale for each in splits["test"])
    host = facts.url.split("/")[2]
    assert f"train.jsonl: 42 of 42 were written by facts ({host}) with sight of" in ended.out
    # The result is checked as any data are.
    assert "rationales: 42 (100 %)" in ended.out
    assert "terms of a model's provider" in ended.out


def test_the_same_command_asks_for_nothing_again(
    command: Command, facts: Facts, source: Path, tmp_path: Path
) -> None:
    out, before = tmp_path / "out", facts.counts()["requests"]
    words = ["data", "write", source, "--out", out, NOTHING, *facts.words]
    assert command(*words).status == 0
    asked = facts.counts()["requests"] - before
    assert asked == 60
    whole = {path: path.read_bytes() for path in out.glob("*.jsonl")}
    assert command(*words).status == 0
    # Another filter is another choice among the same answers.
    ended = command(*words, "write.keep=right", "write.drop.words=[3, 12]")
    assert ended.status == 0
    assert "too long" in ended.out
    assert facts.counts()["requests"] - before == asked
    assert {path: path.read_bytes() for path in out.glob("*.jsonl")} != whole
    rejected = rows(out / "written" / "rejected.jsonl")
    assert {row["reason"] for row in rejected} == {"too long"}
    assert record(out)["splits"]["train"]["dropped"] == {"too long": len(rejected)}
    # More samples ask for the new ones alone.
    command(*words, "write.samples=2", "write.keep=best")
    assert facts.counts()["requests"] - before == 2 * asked


def test_a_dry_run_asks_for_nothing(
    command: Command, facts: Facts, source: Path, tmp_path: Path
) -> None:
    before, out = facts.counts()["requests"], tmp_path / "out"
    words = ["write.price={input: 1, output: 10}", "write.rate={requests: 30}", "--dry-run"]
    ended = command("data", "write", source, "--out", out, *facts.words, *words)
    assert ended.status == 0
    lines = ended.out.splitlines()
    assert lines[0] == "requests: 60 (0 are answered already)"
    assert "at most 15,360 to write" in lines[1]
    # 60 x 256 tokens at 10, and about 60 x 85 at 1, for a million.
    assert lines[2] == "price: at most 0.16"
    assert lines[3] == "time at the given rate: 2.0 minutes or more"
    assert "Right answer: " in ended.out
    assert facts.counts()["requests"] == before
    assert not out.exists()


def test_a_key_is_taken_from_the_environment_and_shown_nowhere(
    command: Command, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with facts_server("--key", KEY) as facts:
        words = ["data", "write", source, "--out", tmp_path / "out", *facts.words]
        (error,) = command(*words).errors
        assert error == (
            f"write.key: {facts.url} refuses the key of the environment variable KNIFE_WRITE_KEY, "
            "which is not set (status 401): Incorrect API key provided"
        )
        monkeypatch.setenv("MY_KEY", KEY)
        ended = command(*words, "write.key=MY_KEY")
    assert ended.status == 0
    assert KEY not in ended.out + ended.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()


def test_a_key_in_the_config_is_refused_and_not_repeated(
    command: Command, source: Path, tmp_path: Path
) -> None:
    words = ["data", "write", source, "--out", tmp_path / "out", "write.model=m"]
    for setting in (f"write.key={KEY}", f"write.url=http://me:{KEY}@host/v1"):
        ended = command(*words, setting)
        assert ended.status == 2
        assert KEY not in ended.out + ended.err
        assert "not shown here" in ended.err


def test_a_model_that_always_refuses_ends_the_work(
    command: Command, source: Path, tmp_path: Path
) -> None:
    with facts_server("--refuse") as facts:
        words = ["data", "write", source, "--out", tmp_path / "out", *facts.words]
        ended = command(*words, "write.in_flight=1")
        assert ended.status == 1
        lines = ended.err.splitlines()
        assert lines[0].startswith(
            "error: 10 of 60 requests are not answered: 50 requests in a row brought nothing of "
            "use: the model wrote \"I'm sorry"
        )
        assert "all answers are kept" in ended.err
        assert facts.counts()["answered"] == 50
    assert record(tmp_path / "out")["splits"]["train"]["dropped"] == {"refused": 50}


def test_a_budget_ends_the_work_and_a_larger_one_goes_on(
    command: Command, source: Path, tmp_path: Path
) -> None:
    with facts_server() as facts:
        words = ["data", "write", source, "--out", tmp_path / "out", *facts.words]
        ended = command(*words, "write.budget.tokens=2000", "write.max_tokens=40")
        assert ended.status == 1
        assert "are not answered: the budget allows no further request" in ended.err
        used = record(tmp_path / "out")["tokens"]
        assert 1500 < used["read"] + used["written"] <= 2000
        assert command(*words, "write.max_tokens=40").status == 0
        assert facts.counts() == {"requests": 60, "answered": 60, "again": 0}


def test_gaps_are_filled_and_what_is_there_is_kept(
    command: Command, facts: Facts, source: Path, tmp_path: Path
) -> None:
    train = source / "train.jsonl"
    given = [row | {"rationale": "by hand ."} for row in rows(train)[:6]] + rows(train)[6:]
    train.write_text("".join(json.dumps(row) + "\n" for row in given))
    words = ["data", "write", source, "--out", tmp_path / "out", *facts.words]
    (error,) = command(*words).errors
    assert error.startswith(
        "data.source: 6 of 60 examples of train have a rationale; give --missin"
    )
    ended = command(*words, "--missing", "write.shots=4")
    assert ended.status == 0
    found = rows(tmp_path / "out" / "train.jsonl")
    assert [row["rationale"] for row in found[:6]] == ["by hand ."] * 6
    assert all(row["rationale"] for row in found)
    assert "54 of 60 were written by" in ended.out
    assert "6 were there before" in ended.out
    shots = record(tmp_path / "out")["prompt"]["shots"]
    assert [shot["rationale"] for shot in shots] == ["by hand ."] * 4
    assert set(ended.err.splitlines()) == set()


def test_test_is_written_for_analysis_alone_and_apart(
    command: Command, facts: Facts, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ended = command("data", "write", source, "--out", out, "--for-analysis", *facts.words)
    assert ended.status == 0
    assert not any(row["rationale"] for row in rows(out / "test.jsonl"))
    assert all(row["rationale"] for row in rows(out / "written" / "test.jsonl"))
    ended = command("data", "write", source, "--out", out, "--json", *facts.words)
    values = json.loads(ended.out)
    assert values["written"]["splits"]["train"]["written"] == 60
    assert values["check"]["splits"]["train"]["rationales"] == 60
    assert values["failures"] == []


def test_everything_wrong_is_told_at_once(command: Command, source: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Why is it {{ answer }}?")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    errors = command(
        "data", "write", source, "--out", tmp_path / "mine", "write.model=no/where/to/be/found",
        f"write.prompt={tmp_path}/prompt.txt", "write.workers=99",
    ).errors  # fmt: skip
    assert [error.partition(":")[0] for error in errors] == [
        "--out",
        "write.workers",
        "write.prompt",
        "write.model",
    ]


def test_a_bucket_is_refused(command: Command, facts: Facts, source: Path) -> None:
    (error,) = command("data", "write", source, "--out", "s3://bucket/out", *facts.words).errors
    assert error.startswith("--out: must be a folder, but got 's3:/bucket/out'")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "write: must be set: write.url and write.model"),
        (["write.model=m", "write.url=http://h:99999/v1"], "write.url: must be http://HOST:PORT"),
        (["write.model=m", "write.key=gsk_abcdEFGH1234"], "write.key: must be the name of an env"),
        (["write.model=m", "write.extra={top_p: 1}"], "write: got extra, which is for a server"),
        (
            ["write.model=m", "write.url=http://h/v1", "write.extra={max_completion_tokens: a}"],
            "write.extra: max_completion_tokens must be a number above 0",
        ),
        (["write.model=m", "write.extra={top_p: .nan}"], "write.extra: got what JSON cannot hold:"),
        (["write.model=m", "write.url=host:8000"], "write.url: must be http://HOST:PORT/v1"),
        (["write.model=m", "write.budget.tokens=0"], "write.budget.tokens: input should be great"),
        (["write.model=m", "write.keep=best"], "write: got keep: best, which chooses among sampl"),
        (["write.model=m", "write.rationales=2"], "write: got rationales: 2, more than samples: 1"),
        (["write.model=m", "write.samples=2", "write.temperature=0"], "write: got several samples"),
        (["write.model=m", "write.budget.money=1"], "write: got budget.money, which needs write."),
        (["write.model=m", "write.drop.words=[9, 3]"], "write.drop.words: must be [FEWEST, MOST]"),
        (["write.model=m", "write.modle=m"], "write.modle: unknown key; did you mean 'model'?"),
        (["write.model=m", "seeds=[1]"], "seeds: only data.KEY=VALUE and write.KEY=VALUE can be"),
        (["write.model=m", "write.extra={n: 2}"], "write.extra: got n, which are set by keys of"),
        (["write.model=m", "write.url=http://h/v1", "write.shots=4"], "write.shots: 4 examples"),
        (["write.model=tiny-t5"], "write.model: 'tiny-t5' is a 't5' model, but rationales are wri"),
    ],
)
def test_wrong_settings_are_told_by_their_keys(
    command: Command, source: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    (error,) = command("data", "write", source, "--out", tmp_path / "out", *words).errors
    assert error.startswith(said)


def test_data_with_rationales_are_written_anew_only_if_one_says_so(
    command: Command, facts: Facts, tmp_path: Path
) -> None:
    words = ["data.world={train: 20, dev: 4, test: 4}", *facts.words]
    (error,) = command("data", "write", "creatures", "--out", tmp_path / "out", *words).errors
    assert error.startswith("data.source: all 20 examples of train have a rationale; to have them ")
    words.append("data.rationale=none")
    assert command("data", "write", "creatures", "--out", tmp_path / "out", *words).status == 0


def test_a_wrong_model_and_a_silent_address(command: Command, source: Path, tmp_path: Path) -> None:
    words = ["data", "write", source, "--out", tmp_path / "out"]
    with facts_server("--models", "large") as facts:
        (error,) = command(*words, *facts.words).errors
    assert error.startswith(f"write.model: {facts.url} has no model 'facts', or the address is wr")
    port = free_port()
    (error,) = command(*words, f"write.url=http://127.0.0.1:{port}/v1", "write.model=m").errors
    assert error.startswith(f"write.url: http://127.0.0.1:{port}/v1 does not answer: ")


def test_a_model_of_a_folder_writes_here(command: Command, source: Path, tmp_path: Path) -> None:
    words = ["data", "write", source, "--out", tmp_path / "out", "write.model=tiny-llama"]
    ended = command(*words, "write.max_tokens=40", "write.drop.repeated=false", "data.fraction=0.1")
    assert ended.status == 0
    found = record(tmp_path / "out")
    assert found["address"] is None
    assert found["files_of_model"]
    assert found["tokens"]["counted"]
    assert "6 questions" not in ended.err
    again = command(*words, "write.max_tokens=40", "data.fraction=0.1", "--dry-run")
    assert again.out.startswith("requests: 0 (6 are answered already)")


def test_a_run_says_where_its_rationales_come_from(
    command: Command, facts: Facts, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["write.splits=[train,dev]", *facts.words]
    assert command("data", "write", source, "--out", out, *words).status == 0
    mixed = {"name": "mixed", "method": "knife", "data": {"rationale": "shuffled"}}
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    changes = {
        "data": {"source": str(out)},
        "methods": ["finetune", "knife", mixed],
        "track": {"uri": uri},
        "store": str(tmp_path / "store"),
    }
    config = tmp_path / "mine.yaml"
    config.write_text(safe_dump(merge(SMALL, changes)))
    host = facts.url.split("/")[2]
    said = f"60 of 60 were written by facts ({host}) with sight of the answer"
    ended = command("run", config, "--dry-run")
    assert f"note: rationales of train: {said}" in " ".join(ended.out.split())
    done: FinishedRun = finish_here(config)
    (folder,) = (tmp_path / "store" / "runs").iterdir()
    kept = RunData.read(folder, Store(tmp_path / "store")).record["written"]
    # Both treatments of them.
    assert [each["settings"]["keep"] for each in kept.values()] == ["all", "all"]
    card = (done.student("knife") / "README.md").read_text()
    assert f"| rationales of train | {said}" in card
    assert "A language model wrote training rationales" in card
    page = run_report(folder, Store(tmp_path / "store"))
    assert "Gain by source of rationales" in page
    assert said in page
    assert "RQ on dev" in page
    (top,) = mlflow.MlflowClient(uri).search_runs(
        [mlflow.MlflowClient(uri).get_experiment_by_name("knife").experiment_id],
        "tags.`knife.rationales.by` LIKE 'facts%'",
    )
    assert said in top.data.tags["knife.rationales"]
    # Who edits the files makes the record wrong, and is told so.
    (out / "train.jsonl").write_text((out / "train.jsonl").read_text().replace("blue", "red"))
    ended = command("run", config, "--dry-run")
    assert "note: train.jsonl: not as the language model's" in " ".join(ended.out.split())


def test_another_source_is_not_written_over(
    command: Command, facts: Facts, source: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other.jsonl"
    lines = [row | {"id": f"other-{row['id']}"} for row in rows(source / "train.jsonl")]
    other.write_text("".join(json.dumps(row) + "\n" for row in lines))
    assert command("data", "write", source, "--out", out, *facts.words).status == 0
    before = (out / "train.jsonl").read_bytes()
    (error,) = command("data", "write", other, "--out", out, *facts.words).errors
    assert error.startswith(f"--out: {out} holds rationales for {source}; give another folder")
    (error,) = command("data", "write", out, "--out", out, "--missing", *facts.words).errors[-1:]
    assert error == f"--out: {out} is the source itself; give another folder"
    assert (out / "train.jsonl").read_bytes() == before
    # The same under another name is the same.
    asked = facts.counts()["requests"]
    moved = source.rename(tmp_path / "moved")
    assert command("data", "write", moved, "--out", out, *facts.words).status == 0
    assert facts.counts()["requests"] == asked


def test_a_folder_may_be_named_like_a_known_source(
    command: Command, facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["data.world={train: 20, dev: 4, test: 4}", "data.rationale=none", *facts.words]
    assert command("data", "write", "creatures", "--out", "creatures", *words).status == 0


def test_who_wrote_before_is_not_forgotten(
    command: Command, facts: Facts, source: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    words = ["write.drop.words=[3, 11]", *facts.words]
    assert command("data", "write", source, "--out", first, *words).status == 0
    ended = command("data", "write", first, "--out", second, "--missing", *facts.words)
    assert ended.status == 0
    assert record(second)["before"]["settings"]["drop"]["words"] == [3, 11]
    host = facts.url.split("/")[2]
    assert f"were there before, some of them written by facts ({host})" in ended.out


def test_a_command_that_waited_asks_for_nothing_again(source: Path, tmp_path: Path) -> None:
    """Both are planned before either asks."""
    with facts_server() as facts:
        settings = Write(url=facts.url, model="facts")
        splits = load_source(Data(source=str(source)))
        jobs = [
            plan_job(settings, str(source), splits, tmp_path / "out", gaps=False, analysis=False)
            for _ in range(2)
        ]
        assert [len(job.missing) for job in jobs] == [60, 60]
        for job in jobs:
            assert write(job).failures == []
        assert facts.counts() == {"requests": 60, "answered": 60, "again": 0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ question }} {{ 1 / 0 }}", "division by zero"),
        ("{{ question }} {{ choices[7] }}", "has no element 7"),
    ],
)
def test_a_prompt_that_fails_on_an_example_is_told(
    command: Command, facts: Facts, source: Path, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "prompt.txt").write_text(text)
    words = [f"write.prompt={tmp_path}/prompt.txt", *facts.words]
    (error,) = command("data", "write", source, "--out", tmp_path / "out", *words).errors
    assert error.startswith(f"write.prompt: {tmp_path}/prompt.txt: cannot be filled in for the ex")
    assert said in error


def test_a_key_with_a_line_break_is_told_and_not_shown(
    command: Command, facts: Facts, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNIFE_WRITE_KEY", "sk-1\nsk-2")
    words = ["data", "write", source, "--out", tmp_path / "out", *facts.words]
    (error,) = command(*words).errors
    assert error.startswith("write.key: the environment variable KNIFE_WRITE_KEY holds more than")
    assert "sk-1" not in error


def test_a_budget_of_a_model_that_runs_here(command: Command, source: Path, tmp_path: Path) -> None:
    """Of a batch, as many are asked for as it allows."""
    words = ["data", "write", source, "--out", tmp_path / "out", "write.model=tiny-llama"]
    words += ["write.max_tokens=20", "write.drop.repeated=false"]
    ended = command(*words, "write.budget.tokens=900")
    assert ended.status == 1
    used = record(tmp_path / "out")["tokens"]
    assert 700 < used["read"] + used["written"] <= 900
    before = used["read"]
    assert command(*words, "write.budget.tokens=1800").status == 1
    assert before < record(tmp_path / "out")["tokens"]["read"] < 1800
