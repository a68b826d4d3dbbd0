"""Against MLflow's own server application over HTTP, which goes away and comes back."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_fixtures import Command
from mlflow import MlflowClient
from mlflow.entities import Run
from small_run import wait_for
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from knife.core.errors import UserError
from knife.track import tracker as tracker_module
from knife.track.outbox import left
from knife.track.resend import resend
from knife.track.tracker import Tracker
from knife.train.follow import Follower
from knife.train.journal import Row


class Quiet(WSGIRequestHandler):
    """Logs no request."""

    def log(self, *_: object) -> None: ...


class Server:
    """MLflow's server on one port, to be stopped and started.

    Of the first requests to each path in `lost`, it does what they ask and loses the answer. Where
    it `wants` an Authorization header, it answers nobody else. With `tls` its certificate is one of
    its own.
    """

    def __init__(self, *, tls: bool = False) -> None:
        self.port = 0
        self.lost: list[str] = []
        self.wants: str | None = None
        self.tls = tls

    def start(self) -> None:
        from mlflow.server import app

        def losing(environ: Any, start_response: Any) -> Any:
            name = environ["PATH_INFO"].split("/mlflow/")[-1]
            if self.wants not in (None, environ.get("HTTP_AUTHORIZATION")):
                start_response("401 Unauthorized", [("WWW-Authenticate", "Basic")])
                return [b"who are you?"]
            if name not in self.lost:
                return app(environ, start_response)
            self.lost.remove(name)
            list(app(environ, lambda *_: None))
            start_response("503 Service Unavailable", [])
            return [b"the way back is broken"]

        self.server: BaseWSGIServer = make_server(
            *("127.0.0.1", self.port, losing),
            threaded=True,
            request_handler=Quiet,
            ssl_context="adhoc" if self.tls else None,
        )
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{store}/mlflow.db")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
        patch.setenv("_MLFLOW_SERVER_ARTIFACT_DESTINATION", str(store / "artifacts"))
        patch.setenv("_MLFLOW_SERVER_SERVE_ARTIFACTS", "true")
        made = Server()
        made.start()
        yield made
        made.stop()


def rows(first: int, last: int) -> list[Row]:
    return [
        {"step": s, "time": 1e9 + s, "metrics": {"loss": 1 / s}} for s in range(first, last + 1)
    ]


def test_a_server_that_goes_away_and_comes_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "SHORTEST_PAUSE", 0.1)
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "knife.json").write_text("{}")
    uri = f"http://me:secret@127.0.0.1:{server.port}"
    with Tracker(uri, tmp_path / "store", "over-http") as tracker:
        assert tracker.uri == f"http://***@127.0.0.1:{server.port}"
        # The server's own store opens on its first request and may take its time.
        run = tracker.open_run("demo", "k1", {"a": 1}, {})
        page = f"/#/experiments/{tracker.experiment_id}/runs/{run.run_id}"
        assert tracker.link(run) == (
            f"http://127.0.0.1:{server.port}{page}?workflowType=machine_learning"
        )
        child = run.child("student", "k2", {}, {})
        child.send(rows(1, 1500))
        child.send([{"step": 1, "time": 1.0, "metrics": {"odd": float("nan")}}])
        child.model(folder, "student")
        assert tracker.flush()
        server.stop()
        start = time.monotonic()
        child.send(rows(1501, 1600))
        child.text("note.txt", "late")
        child.finish("FINISHED")
        assert time.monotonic() - start < 10, "no caller waits for MLflow"
        assert not tracker.flush()
        assert tracker.unsent()[0].startswith("MLflow lacks 100 rows of metrics, artifact note.txt")
        assert "secret" not in str(tracker.unsent())
        server.start()
        end = time.monotonic() + 300
        while tracker.unsent() and time.monotonic() < end:
            time.sleep(0.05)
        assert tracker.close() == []
    history = tracker.client.get_metric_history(child.run_id, "loss")
    assert [metric.step for metric in history] == list(range(1, 1601))
    assert tracker.client.get_run(child.run_id).info.status == "FINISHED"
    note = tracker.client.download_artifacts(child.run_id, "note.txt", str(tmp_path))
    assert Path(note).read_text() == "late"
    (model,) = tracker.client.search_logged_models([tracker.experiment_id])
    assert model.status == "READY"


def in_the_journal(store: Path, key: str, content: list[Row], mode: str = "w") -> None:
    path = store / "student" / key / "journal.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode) as file:
        file.writelines(json.dumps(row) + "\n" for row in content)


def tell(uri: str, store: Path, experiment: str, score: Row) -> list[str]:
    """What a small run tells: a nested run with a journal, a score, a model, and two ends."""
    (store / "model").mkdir(exist_ok=True)
    (store / "model" / "knife.json").write_text("{}")
    with Tracker(uri, store, experiment) as tracker:
        run = tracker.open_run("demo", "k1", {"a": 1, "uri": uri}, {"remote": uri})
        child = run.child("student", "k2", {"b": 2}, {"c": uri})
        with Follower(store) as follower:
            follower.follow("student", "k2", child)
        child.log_row(score)
        child.log_summary({"accuracy": 0.5})
        child.text("note.txt", uri)
        child.model(store / "model", "student")
        child.finish("FINISHED")
        run.finish("FAILED")
        return tracker.close()


def tree(client: MlflowClient, experiment: str) -> dict[str, Run]:
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def check_told(uri: str, experiment: str, scores: list[int]) -> None:
    """MLflow has all of `tell`, once."""
    client = MlflowClient(uri)
    runs = tree(client, experiment)
    assert {name: run.info.status for name, run in runs.items()} == {
        "demo": "FAILED",
        "student": "FINISHED",
    }
    parent, child = runs["demo"], runs["student"]
    assert parent.data.params["a"] == "1"
    assert child.data.params == {"b": "2"}
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    history = client.get_metric_history(child.info.run_id, "loss")
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (row["step"], row["metrics"]["loss"], int(row["time"] * 1000)) for row in rows(1, 1200)
    ]
    found = client.get_metric_history(child.info.run_id, "score")
    assert [metric.step for metric in found] == scores
    assert len(client.get_metric_history(child.info.run_id, "accuracy")) == 1
    assert [file.path for file in client.list_artifacts(child.info.run_id)] == ["note.txt"]
    (model,) = client.search_logged_models([parent.info.experiment_id])
    assert (model.name, model.status) == ("student", "READY")


def score(step: int) -> Row:
    return {"step": step, "time": 1e9 + step, "metrics": {"score": 0.5}}


def test_a_server_that_is_down_from_start_to_end_gets_all_by_sync(
    server: Server, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_journal(tmp_path, "k2", rows(1, 1200))
    address = f"127.0.0.1:{server.port}"
    uri = f"http://me:secret@{address}"
    server.stop()
    began = time.time()
    lines = tell(uri, tmp_path, "sync", score(1))
    ended = time.time()
    assert ended - began < 60, "MLflow by itself tries for a minute and a half"
    assert lines[0].startswith("MLflow lacks the start, params and tags, artifact config.yaml")
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes(), path
    # The password is nowhere, so it has to be given.
    (fault,) = command("sync", "--store", tmp_path).faults
    assert f"the password of http://***@{address} is not kept on disk" in fault
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    done = command("sync", "--store", tmp_path)
    assert (done.status, done.out) == (1, "")
    assert f"MLflow at http://***@{address} does not answer (run 'demo'): " in done.err
    assert f"it is kept in {tmp_path}/outbox" in done.err
    server.start()
    done = command("sync", "--store", tmp_path)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"demo, to the experiment 'sync' at http://***@{address}:",
        "  demo: 2 params, 1 artifact",
        "  student: 1,202 metrics, 1 param, 1 artifact, 1 model",
    ]
    check_told(uri, "sync", [1])
    for run in tree(MlflowClient(uri), "sync").values():
        assert began * 1000 - 1 <= run.info.start_time <= run.info.end_time <= ended * 1000
    done = command("sync", "--store", tmp_path)
    assert (done.status, done.out) == (0, f"there is nothing to send from {tmp_path}\n")


def test_the_next_start_sends_what_the_one_before_could_not(server: Server, tmp_path: Path) -> None:
    in_the_journal(tmp_path, "k2", rows(1, 600))
    uri = f"http://127.0.0.1:{server.port}"
    server.stop()
    assert tell(uri, tmp_path, "next", score(1))
    assert tell(uri, tmp_path, "next", score(2))
    assert len(left(tmp_path)) == 1, "one file for all starts"
    server.start()
    in_the_journal(tmp_path, "k2", rows(601, 1200), "a")
    assert tell(uri, tmp_path, "next", score(3)) == []
    check_told(uri, "next", [1, 2, 3])
    assert left(tmp_path) == []


def test_a_server_that_is_down_at_the_start_and_comes_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "SHORTEST_PAUSE", 0.1)
    server.stop()
    with Tracker(f"http://127.0.0.1:{server.port}", tmp_path, "back") as tracker:
        run = tracker.open_run("demo", "k1", {}, {})
        run.log_row(score(1))
        assert run.run_id is None
        server.start()
        wait_for(lambda: not tracker.unsent())
        (known,) = tree(tracker.client, "back").values()
        assert known.info.run_id == run.run_id
        assert known.data.metrics == {"score": 0.5}


def test_answers_that_are_lost_double_nothing(server: Server, tmp_path: Path) -> None:
    """What was asked is done, and nobody knows: it is looked for before it is told again."""
    in_the_journal(tmp_path, "k2", rows(1, 1200))
    uri = f"http://127.0.0.1:{server.port}"
    server.lost = [*["runs/create", "runs/update"] * 2, *["runs/log-batch"] * 12, "logged-models"]
    tell(uri, tmp_path, "lost", score(1))
    starts = 1
    while left(tmp_path):
        resend(tmp_path)
        starts += 1
        assert starts < 20
    assert starts > 1
    assert server.lost == []
    check_told(uri, "lost", [1])


def test_sync_leaves_alone_what_a_living_process_sends(
    server: Server, tmp_path: Path, command: Command
) -> None:
    with Tracker(f"http://127.0.0.1:{server.port}", tmp_path, "held") as tracker:
        tracker.open_run("demo", "k1", {}, {})
        done = command("sync", "--store", tmp_path)
        assert done.status == 0
        assert done.out.endswith("a process that is at work holds it and sends it\n")
    assert left(tmp_path) == []


def test_sync_of_a_folder_that_is_no_store(tmp_path: Path, command: Command) -> None:
    (fault,) = command("sync", "--store", tmp_path / "none").faults
    assert fault.startswith(f"--store: {tmp_path}/none is no store of runs")


def test_something_that_is_no_mlflow(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="failed with error code 404"):
        Tracker(f"http://127.0.0.1:{server.port}/somewhere", tmp_path, "exp")


def recorded(uri: str, store: Path) -> str:
    """The status of a run that is told to a server."""
    with Tracker(uri, store, "exp") as tracker:
        run = tracker.open_run("demo", "k1", {}, {})
        run.finish("FINISHED")
        assert tracker.close() == []
    return str(tracker.client.get_run(run.run_id).info.status)


def test_a_server_that_wants_credentials(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "wants", f"Basic {base64.b64encode(b'me:secret').decode()}")
    uri = f"http://127.0.0.1:{server.port}"
    with pytest.raises(UserError, match="correct the address or the credentials"):
        Tracker(uri, tmp_path, "exp")
    assert recorded(f"http://me:secret@127.0.0.1:{server.port}", tmp_path) == "FINISHED"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    with pytest.raises(UserError, match="401"):
        Tracker(uri, tmp_path, "exp")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert recorded(uri, tmp_path) == "FINISHED"


@pytest.mark.usefixtures("server")
def test_a_server_with_a_certificate_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own settings say which certificates are trusted, for all that is asked."""
    safe = Server(tls=True)
    safe.start()
    uri = f"https://127.0.0.1:{safe.port}"
    try:
        with pytest.raises(UserError, match="CERTIFICATE_VERIFY_FAILED"):
            Tracker(uri, tmp_path, "exp")
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        assert recorded(uri, tmp_path) == "FINISHED"
    finally:
        safe.stop()
