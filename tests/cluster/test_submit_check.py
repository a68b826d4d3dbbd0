"""What `knife submit` refuses before anything is sent, and what it would send; no cluster."""

import json
import os
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from command_fixtures import Command
from ray._private.runtime_env.packaging import create_package
from small_run import SMALL

from knife.cli.submit import _ended
from knife.cli.submit_check import check
from knife.core.errors import UserError
from knife.launch import jobs, working_dir
from knife.launch.jobs import JobEnd, JobLog, Jobs
from knife.launch.working_dir import look_at

NOWHERE = "http://127.0.0.1:9"
SHARED = "store=/shared/store"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with a config and a sweep."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(jobs, "_START_SECONDS", 0.0)
    base = {key: value for key, value in SMALL.items() if key != "scale"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(base))
    sweep = {"name": "s", "base": "mine.yaml", "space": {"align.input.weight": {"choice": [1, 2]}}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep | {"budget": {"trials": 2}}))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run mine.yaml", "store: ./knife-store would be in the job's own copy"),
        ("tune sweep.yaml", "store: ./knife-store would be in the job's own copy"),
        (f"run min.yaml {SHARED}", "CONFIG: 'min.yaml' is neither a recipe nor a file"),
        (f"run mine.yaml {SHARED} data.fractoin=1", "data.fractoin: unknown key; did you mean"),
        (f"run mine.yaml {SHARED} student.batch_size=1 scale.workers=2", "student.batch_size: "),
        (f"run mine.yaml {SHARED} data.source=./none", "data.source: ./none is missing in the"),
        (f"run mine.yaml {SHARED} model.teacher=../t", "model.teacher: ../t is outside the work"),
        (f"run mine.yaml {SHARED} data.source=mlruns", "data.source: mlruns is ignored"),
        (f"run mine.yaml {SHARED} track.uri=sqlite:///m.db", "track.uri: sqlite:///m.db would be"),
        (f"tune sweep.yaml {SHARED} budget.trails=2", "budget.trails: unknown key"),
        (f"tune sweep.yaml {SHARED} student.epochs=0", "student.epochs: "),
        (f"tune none.yaml {SHARED}", "SWEEP: the file none.yaml does not exist"),
        (f"run mine.yaml {SHARED}", f"--address: {NOWHERE} does not answer"),
        (f"tune sweep.yaml {SHARED}", f"--address: {NOWHERE} does not answer"),
        (f"run mine.yaml {SHARED} data.source=hub:you/quiz", f"--address: {NOWHERE} does not"),
        ("run mine.yaml --dry-run", f"--address: {NOWHERE} does not answer"),
    ],
)
def test_errors_of_the_words_come_before_the_cluster(
    command: Command, folder: Path, words: str, expected: str
) -> None:
    (folder / "mlruns").mkdir()
    ended = command("submit", "--address", NOWHERE, "--", *words.split())
    (error,) = ended.errors
    assert error.startswith(expected)


def test_words_that_are_no_command_of_a_job(command: Command, folder: Path) -> None:
    for words, expected in (
        (["predict", "x"], "a job must be `run …` or `tune …`"),
        (["run", "mine.yaml", "--dryrun"], "No such option"),
        (["run"], "Missing argument"),
    ):
        ended = command("submit", "--address", NOWHERE, "--", *words)
        assert ended.status == 2
        assert expected in ended.err
    ended = command("submit", "--address", NOWHERE, "--working-dir", "none", "run", "mine.yaml")
    assert ended.errors == [f"--working-dir: the folder {folder / 'none'} does not exist"]


def test_passwords_are_neither_sent_nor_shown(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "track.uri=http://me:hunter2@host"
    ended = command("submit", "--address", NOWHERE, "run", "mine.yaml", SHARED, secret)
    (error,) = ended.errors
    assert error.startswith("track.uri=http://***@host: contains a password")
    address = "http://me:hunter2@127.0.0.1:9"
    ended = command("submit", "--address", address, "run", "mine.yaml", SHARED)
    assert ended.errors[0].startswith(f"--address: {NOWHERE} does not answer;")
    values = {"config": "mine.yaml", "overrides": [SHARED], "dry_run": False}
    for uri, sent in (
        ("http://tracking:5000", True),
        ("http://me:hunter2@tracking:5000", False),
        ("sqlite:////tmp/m.db", False),
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        checked = check(["run"], values, folder)
        assert checked.environment == ({"MLFLOW_TRACKING_URI": uri} if sent else {})
        assert len(checked.notes) == (not sent)
        local = "knife ui --store /shared/store, on a host that has the store"
        assert checked.mlflow == (uri if sent else local)


class Stub(BaseHTTPRequestHandler):
    """Answers every request in the same way."""

    answer: ClassVar[tuple[int, str]]

    def do_GET(self) -> None:
        self.send_response(self.answer[0])
        self.end_headers()
        self.wfile.write(self.answer[1].encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@pytest.fixture
def stub() -> Iterator[HTTPServer]:
    """Start a web server that is not a Ray dashboard, or a misbehaving one."""
    with HTTPServer(("127.0.0.1", 0), Stub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((200, "<html>"), "is not a Ray dashboard"),
        ((200, "[]"), "is not a Ray dashboard"),
        ((404, "gone"), "is not a Ray dashboard"),
        ((500, "oh"), "is not a Ray dashboard"),
        ((401, "Unauthorized"), "requires a token that it did not get: set RAY_AUTH_MODE=token"),
        ((403, "Forbidden"), "requires a token that it did not get: set RAY_AUTH_MODE=token"),
    ],
)
def test_an_address_that_takes_no_jobs(
    stub: HTTPServer, answer: tuple[int, str], expected: str
) -> None:
    Stub.answer = answer
    with pytest.raises(UserError, match=expected):
        Jobs(f"127.0.0.1:{stub.server_port}")


def test_an_address_that_is_none_or_where_nobody_speaks(
    stub: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in ("ray://h:10001", "http://", "http://h:port", "h:99999"):
        with pytest.raises(UserError, match="must be the address of a Ray dashboard"):
            Jobs(address)
    monkeypatch.setattr(jobs, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(jobs, "_START_SECONDS", 0.0)
    hang = threading.Event()
    monkeypatch.setattr(Stub, "do_GET", lambda _: hang.wait(5))
    with pytest.raises(UserError, match="does not answer"):
        Jobs(f"http://127.0.0.1:{stub.server_port}/#/jobs")
    hang.set()


def test_a_cluster_that_is_just_starting_is_waited_for(
    stub: HTTPServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first two requests find no dashboard, the next two jobs no agent that starts them."""
    monkeypatch.setattr(jobs, "_START_SECONDS", 60.0)
    address = f"http://127.0.0.1:{stub.server_port}"
    asked: list[str] = []

    def get(stub: Stub) -> None:
        asked.append("get")
        if len(asked) > 2:
            answer(stub)
        else:
            stub.connection.shutdown(socket.SHUT_RDWR)

    def post(stub: Stub) -> None:
        asked.append("post")
        stub.rfile.read(int(stub.headers["Content-Length"]))
        started = json.dumps({"submission_id": "j", "job_id": "j"})
        failed = "Failed to start: No available agent to submit job, try again"
        Stub.answer = (200, started) if asked.count("post") > 2 else (500, failed)
        answer(stub)
        Stub.answer = version

    version = Stub.answer = (200, json.dumps({"ray_version": "2.60.0"}))
    answer = Stub.do_GET
    monkeypatch.setattr(Stub, "do_GET", get)
    monkeypatch.setattr(Stub, "do_POST", post, raising=False)
    there = Jobs(address)
    there.submit("j", ["true"], look_at(folder, []), {})
    assert asked.count("post") == 3
    assert capsys.readouterr().err.splitlines() == [
        f"{address} does not answer; trying again for up to 60 s …",
        "the cluster is still starting; waiting until it can start jobs …",
    ]


def test_what_is_interrupted_while_it_is_sent_may_be_there(
    command: Command, folder: Path, stub: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    Stub.answer = (200, json.dumps({"ray_version": "2.60.0"}))
    monkeypatch.setattr(Jobs, "submit", interrupt)
    address = f"http://127.0.0.1:{stub.server_port}"
    ended = command("submit", "--address", address, "run", "mine.yaml", SHARED)
    assert ended.status == 130
    assert re.search(rf"sending {folder}: 2 files, \d+ B\n", ended.err)
    assert re.search(rf"stop it: ray job stop --address {address} small-\w{{12}}\n", ended.err)


def test_a_cluster_that_goes_away_ends_the_following(
    stub: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stub.answer = (200, json.dumps({"ray_version": "2.60.0"}))
    cluster = Jobs(f"http://127.0.0.1:{stub.server_port}")
    Stub.answer = (503, "gone")
    monkeypatch.setattr(jobs, "_LOST_SECONDS", 0)
    with pytest.raises(ConnectionError, match="the cluster no longer answers"):
        cluster.follow("job", JobLog(print))


def test_what_is_sent_is_what_ray_packs_and_no_more(folder: Path) -> None:
    for name in (".git/HEAD", ".venv/bin/python", "knife-store/x", "data/train.jsonl", "a/.env",
                 "a/__pycache__/b.pyc", "a/b.py", "logs/1", "results/store.json", "a/big",
                 "mlruns/1", "k.egg-info/x"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".gitignore").write_text("logs/\n")
    (folder / "a" / ".rayignore").write_text("big\n")
    values = {"config": "mine.yaml", "overrides": [f"store={folder}/results"], "dry_run": False}
    found = look_at(folder, check(["run"], values, folder).stays(folder))
    assert found.files == {
        ".gitignore", "mine.yaml", "sweep.yaml", "data/train.jsonl", "a/b.py", "a/.rayignore"
    }  # fmt: skip
    assert found.holds("data")
    assert not found.holds("dat")
    package = folder.parent / "package.zip"
    create_package(str(folder), package, include_gitignore=True, excludes=list(found.excludes))
    with zipfile.ZipFile(package) as file:
        assert {name for name in file.namelist() if not name.endswith("/")} == found.files
        assert sum(info.file_size for info in file.infolist()) == found.size


def test_a_folder_that_is_too_large_is_refused_with_its_largest_parts(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("data/a", 70), ("data/b", 50), ("model.bin", 90), ("small", 1)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
        os.truncate(folder / name, size * 1_000_000)
    words = ("submit", "--address", NOWHERE, "run", "mine.yaml", SHARED)
    (error,) = command(*words).errors
    assert f"{folder} has 211 MB in 6 files to send, but must have at most 100 MB" in error
    assert "the largest: data/ 120 MB, model.bin 90.0 MB, small 1.0 MB. List in" in error
    (folder / ".rayignore").write_text("*.bin\ndata\n")
    assert look_at(folder, []).size < 2_000_000
    monkeypatch.setattr(working_dir, "_SECONDS", -1)
    (error,) = command(*words).errors
    assert "has more than " in error
    assert "and there is more" in error


def test_of_a_log_only_what_is_new_is_shown() -> None:
    shown: list[str] = []
    log = JobLog(shown.append)
    for whole in ("", "one\ntwo\n", "one\ntwo\n", "one\ntwo\nthree\n"):
        log.add(whole)
    assert shown == ["one\ntwo\n", "three\n"]


def test_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert _ended("j", JobEnd("succeeded", 0, "")) == 0
    assert _ended("j", JobEnd("stopped", None, "")) == 130
    assert _ended("j", JobEnd("failed", 2, "")) == 2
    assert _ended("j", JobEnd("failed", -9, "")) == 137
    capsys.readouterr()
    assert _ended("j", JobEnd("failed", None, "no python at http://me:pw@host")) == 1
    assert capsys.readouterr().err == "job j failed\nno python at http://***@host\n"
