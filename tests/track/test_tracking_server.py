"""Against MLflow's own server application over HTTP, which goes away and comes back."""

import base64
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_fixtures import Command
from mlflow import MlflowClient
from mlflow.entities import Run
from small_run import wait_for
from trees import Shown, journal, node, write
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from knife.core.errors import UserError
from knife.store.store import Store
from knife.track import tracker as tracker_module
from knife.track.catch_up import catch_up
from knife.track.destination import unsent
from knife.track.node import RunNode
from knife.track.tracker import Tracker
from knife.train.journal import Row
from knife.tune.progress import sweep_tree


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


STAGE = ("student", "k2")


def plain_rows(first: int, last: int) -> list[Row]:
    """As of an evaluation: without epochs."""
    return [
        {"step": s, "time": 1e9 + s, "metrics": {"loss": 1 / s}} for s in range(first, last + 1)
    ]


def test_a_server_that_goes_away_and_comes_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "SHORTEST_PAUSE", 0.1)
    store = Store(tmp_path / "store")
    model = store.root / "student" / "k2" / "model"
    model.mkdir(parents=True)
    (model / "knife.json").write_text("{}")
    uri = f"http://me:secret@127.0.0.1:{server.port}"
    with Tracker(uri, store, "over-http", {}) as tracker:
        assert tracker.uri == f"http://***@127.0.0.1:{server.port}"
        write(journal(store, STAGE), plain_rows(1, 1500))
        odd: Row = {"step": 1, "time": 1.0, "metrics": {"odd": float("nan")}}
        student = node("student", journals=(STAGE,), rows=(odd,))
        # The server's own store opens on its first request and may take its time.
        shown = Shown(tracker, store, node("demo", student))
        page = f"/#/experiments/{tracker.experiment_id}/runs/{tracker.run_id}"
        assert tracker.link() == (
            f"http://127.0.0.1:{server.port}{page}?workflowType=machine_learning"
        )
        assert tracker.flush()
        server.stop()
        write(journal(store, STAGE), plain_rows(1501, 1600), "a")
        student = replace(student, texts={"note.txt": "late"}, model="student/k2/model")
        student = replace(student, status="FINISHED", ended=2e9)
        shown.change(children=(student,))
        assert not tracker.flush()
        assert tracker.unsent()[0].startswith(
            "MLflow lacks 100 rows of metrics, the status FINISHED of run 'student'"
        )
        assert "secret" not in str(tracker.unsent())
        server.start()
        wait_for(lambda: not tracker.unsent(), pause=0.05)
        assert tracker.close() == []
    assert shown.steps("student", "loss") == list(range(1, 1601))
    run = shown.runs()["student"]
    assert run.info.status == "FINISHED"
    note = tracker.client.download_artifacts(run.info.run_id, "note.txt", str(tmp_path))
    assert Path(note).read_text() == "late"
    (model,) = tracker.client.search_logged_models([tracker.experiment_id])
    assert model.status == "READY"


def small_tree(*scores: int) -> RunNode:
    """A nested run with a journal, a score, and a model; both runs have ended."""
    score = tuple({"step": step, "time": 1e9 + step, "metrics": {"score": 0.5}} for step in scores)
    student = node(
        "student",
        params={"b": "2"},
        journals=(STAGE,),
        rows=score,
        summary={"accuracy": 0.5},
        texts={"note.txt": "seen"},
        model="student/k2/model",
        status="FINISHED",
    )
    return node("demo", student, params={"a": "1"}, status="FAILED")


def record(uri: str, folder: Path, experiment: str, *scores: int) -> list[str]:
    """What MLflow lacks in the end of a small run that is shown."""
    store = Store(folder)
    model = store.root / "student" / "k2" / "model"
    model.mkdir(parents=True, exist_ok=True)
    (model / "knife.json").write_text("{}")
    with Tracker(uri, store, experiment, {}) as tracker:
        Shown(tracker, store, small_tree(*scores))
        return tracker.close()


@pytest.fixture(autouse=True)
def _small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `sync` finds in the folders of these runs."""
    tree = lambda folder, store, *, alive: small_tree(1)  # noqa: ARG005, E731
    monkeypatch.setitem(sweep_tree.TREES, "runs", tree)


def tree(client: MlflowClient, experiment: str) -> dict[str, Run]:
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def check_recorded(uri: str, experiment: str, scores: list[int]) -> None:
    """MLflow has all of `small_tree`, once."""
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
        (row["step"], row["metrics"]["loss"], int(row["time"] * 1000))
        for row in plain_rows(1, 1200)
    ]
    found = client.get_metric_history(child.info.run_id, "score")
    assert [metric.step for metric in found] == scores
    assert len(client.get_metric_history(child.info.run_id, "accuracy")) == 1
    assert [file.path for file in client.list_artifacts(child.info.run_id)] == ["note.txt"]
    (model,) = client.search_logged_models([parent.info.experiment_id])
    assert (model.name, model.status) == ("student", "READY")


def test_a_server_that_is_down_from_start_to_end_gets_all_by_sync(
    server: Server, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(journal(Store(tmp_path), STAGE, work=False), plain_rows(1, 1200))
    address = f"127.0.0.1:{server.port}"
    uri = f"http://me:secret@{address}"
    server.stop()
    began = time.time()
    lines = record(uri, tmp_path, "sync", 1)
    assert time.time() - began < 60, "MLflow by itself tries for a minute and a half"
    assert lines[0].startswith("MLflow lacks all of run 'demo'")
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes(), path
    # The password is nowhere, so it has to be given.
    (error,) = command("sync", "--store", tmp_path).errors
    assert f"the password of http://***@{address} is not kept on disk" in error
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    done = command("sync", "--store", tmp_path)
    assert (done.status, done.out) == (1, "")
    assert f"MLflow at http://***@{address} does not answer (run 'key-of-demo'): " in done.err
    assert "the store has all of it: the same command sends it later" in done.err
    server.start()
    done = command("sync", "--store", tmp_path)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"demo, to the experiment 'sync' at http://***@{address}:",
        "  demo: 1 param",
        "  student: 1 param, 1,202 metrics, 1 artifact, 1 model",
    ]
    check_recorded(uri, "sync", [1])
    for run in tree(MlflowClient(uri), "sync").values():
        assert (run.info.start_time, run.info.end_time) == (1e12, 2e12)
    done = command("sync", "--store", tmp_path)
    assert (done.status, done.out) == (0, f"there is nothing to send from {tmp_path}\n")


def test_the_next_start_sends_what_the_one_before_could_not(server: Server, tmp_path: Path) -> None:
    path = journal(Store(tmp_path), STAGE, work=False)
    write(path, plain_rows(1, 600))
    uri = f"http://127.0.0.1:{server.port}"
    server.stop()
    assert record(uri, tmp_path, "next", 1)
    assert record(uri, tmp_path, "next", 1, 2)
    assert len(list(unsent(tmp_path))) == 1
    server.start()
    write(path, plain_rows(601, 1200), "a")
    assert record(uri, tmp_path, "next", 1, 2, 3) == []
    check_recorded(uri, "next", [1, 2, 3])
    assert list(unsent(tmp_path)) == []


def test_a_server_that_is_down_at_the_start_and_comes_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "SHORTEST_PAUSE", 0.1)
    server.stop()
    store = Store(tmp_path)
    with Tracker(f"http://127.0.0.1:{server.port}", store, "back", {}) as tracker:
        Shown(tracker, store, node("demo", summary={"score": 0.5}))
        assert tracker.run_id is None
        server.start()
        wait_for(lambda: tracker.run_id and not tracker.unsent())
        (known,) = tree(tracker.client, "back").values()
        assert known.info.run_id == tracker.run_id
        assert known.data.metrics == {"score": 0.5}


def test_answers_that_are_lost_double_nothing(server: Server, tmp_path: Path) -> None:
    """What was asked is done, and nobody knows: it is looked for before it is sent again."""
    store = Store(tmp_path)
    write(journal(store, STAGE, work=False), plain_rows(1, 1200))
    uri = f"http://127.0.0.1:{server.port}"
    server.lost = [*["runs/create", "runs/update"] * 2, *["runs/log-batch"] * 12, "logged-models"]
    record(uri, tmp_path, "lost", 1)
    starts = 1
    while list(unsent(tmp_path)):
        catch_up(store, sweep_tree.TREES)
        starts += 1
        assert starts < 20
    assert starts > 1
    assert server.lost == []
    check_recorded(uri, "lost", [1])


def test_sync_leaves_alone_what_a_living_process_sends(
    server: Server, tmp_path: Path, command: Command
) -> None:
    store = Store(tmp_path)
    with Tracker(f"http://127.0.0.1:{server.port}", store, "held", {}) as tracker:
        Shown(tracker, store, node("demo"))
        done = command("sync", "--store", tmp_path)
        assert done.status == 0
        assert done.out == "key-of-demo: a process is working on it and sends it\n"
    assert list(unsent(tmp_path)) == []


def test_sync_of_a_folder_that_is_no_store(tmp_path: Path, command: Command) -> None:
    (error,) = command("sync", "--store", tmp_path / "none").errors
    assert error.startswith(f"--store: {tmp_path}/none is not a store of runs")


def test_something_that_is_no_mlflow(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="failed with error code 404"):
        Tracker(f"http://127.0.0.1:{server.port}/somewhere", Store(tmp_path), "exp", {})


def recorded(uri: str, folder: Path) -> str:
    """The status of a run that is shown by a server."""
    store = Store(folder)
    with Tracker(uri, store, "exp", {}) as tracker:
        Shown(tracker, store, node("demo", status="FINISHED"))
        assert tracker.close() == []
    return str(tracker.client.get_run(tracker.run_id).info.status)


def test_a_server_that_wants_credentials(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "wants", f"Basic {base64.b64encode(b'me:secret').decode()}")
    uri = f"http://127.0.0.1:{server.port}"
    with pytest.raises(UserError, match="correct the address or the credentials"):
        Tracker(uri, Store(tmp_path), "exp", {})
    assert recorded(f"http://me:secret@127.0.0.1:{server.port}", tmp_path) == "FINISHED"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    with pytest.raises(UserError, match="401"):
        Tracker(uri, Store(tmp_path), "exp", {})
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
            Tracker(uri, Store(tmp_path), "exp", {})
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        assert recorded(uri, tmp_path) == "FINISHED"
    finally:
        safe.stop()
