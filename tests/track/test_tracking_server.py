"""Against MLflow's own server application over HTTP, which goes away and comes back."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from knife.errors import UserError
from knife.track import tracker as tracker_module
from knife.track.journal import Row
from knife.track.tracker import Tracker


class Quiet(WSGIRequestHandler):
    """Logs no request."""

    def log(self, *_: object) -> None: ...


class Server:
    """MLflow's server on one port, to be stopped and started."""

    def __init__(self) -> None:
        self.port = 0

    def start(self) -> None:
        from mlflow.server import app

        self.server: BaseWSGIServer = make_server(
            "127.0.0.1", self.port, app, threaded=True, request_handler=Quiet
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
    (folder / "config.json").write_text("{}")
    uri = f"http://me:secret@127.0.0.1:{server.port}"
    with Tracker(uri, tmp_path / "store", "over-http") as tracker:
        assert tracker.uri == f"http://***@127.0.0.1:{server.port}"
        # The server's own store opens on its first request and may take its time.
        run = tracker.open_run("demo", "k1", {"a": 1}, {})
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
        assert time.monotonic() - start < 0.5, "no caller waits for MLflow"
        assert not tracker.flush()
        assert tracker.unsent()[0].startswith("MLflow lacks 100 rows of metrics, artifact note.txt")
        assert "secret" not in str(tracker.unsent())
        server.start()
        end = time.monotonic() + 60
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


def test_something_that_is_no_mlflow(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="failed with error code 404"):
        Tracker(f"http://127.0.0.1:{server.port}/somewhere", tmp_path, "exp")
