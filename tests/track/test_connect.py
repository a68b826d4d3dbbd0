"""Opening MLflow where it cannot be used: refused at once, with a plain message."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from command_fixtures import free_port
from mlflow.exceptions import MlflowException
from requests.exceptions import ConnectionError as RequestsConnectionError
from trees import Shown, node

from knife.core.errors import UserError
from knife.store.store import Store
from knife.track import connect as connect_module
from knife.track.destination import unsent
from knife.track.tracker import Tracker


@pytest.fixture(autouse=True)
def _no_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(connect_module, "SECONDS", 1)


# MLflow by itself tries for a minute and a half; a second is ours, on a busy machine several.
_ITS_OWN_WAY = 60


def refused(uri: str | None, store: Path) -> str:
    start = time.monotonic()
    with pytest.raises(UserError) as raised:
        Tracker(uri, Store(store, write=False), "exp", {})
    assert time.monotonic() - start < _ITS_OWN_WAY
    (error,) = raised.value.errors
    return error


def goes_on(uri: str, store: Path, caplog: pytest.LogCaptureFixture) -> str:
    """What is warned of where MLflow does not answer; start and end take seconds at most."""
    caplog.clear()
    start = time.monotonic()
    with Tracker(uri, Store(store), "exp", {}) as tracker:
        Shown(tracker, Store(store), node("demo"))
    assert time.monotonic() - start < _ITS_OWN_WAY
    (first, *_) = [r.getMessage() for r in caplog.records]
    return first


def test_no_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    said = goes_on(f"http://me:secret@127.0.0.1:{port}", tmp_path, caplog)
    assert said.startswith(f"MLflow at http://***@127.0.0.1:{port} does not answer: ")
    assert "Connection refused" in said
    assert "the store keeps all that MLflow has to show" in said
    assert said.endswith(f"knife sync --store {tmp_path}")


def test_a_server_that_never_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        assert "timed out" in goes_on(f"http://127.0.0.1:{port}", tmp_path, caplog)


def test_the_settings_of_mlflow_hold_nothing_up(tmp_path: Path) -> None:
    """A user's own settings would wait for minutes; a process of its own reads them."""
    settings = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "7",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "PYTHONPATH": str(Path(connect_module.__file__).parents[2]),
    }
    start = time.monotonic()
    code = OPEN.replace("tracker.experiment_id, tracker.run_id, ", "")
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parents[1])]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert "does not answer" in done.stderr
    assert "MLflow lacks all of run 'demo'" in done.stdout
    assert time.monotonic() - start < 250, "seven retries: 2, 4, … and 128 s of waiting"


@pytest.fixture(scope="module")
def answering() -> Iterator[Callable[[int], str]]:
    """A web server that is no MLflow: `/418/…` is answered with status 418."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(int(self.path.split("/")[1]))
            self.send_header("Retry-After", "600")
            self.end_headers()
            old = self.path.endswith("/old/version")
            self.wfile.write(b"2.22.1" if old else b"<html>no</html>")

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield lambda status: f"http://127.0.0.1:{server.server_port}/{status}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_server_that_cannot_now(
    status: int,
    answering: Callable[[int], str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert f"{status} error responses" in goes_on(answering(status), tmp_path, caplog)


@pytest.mark.parametrize("status", [401, 403, 404, 200])
def test_a_server_that_refuses_or_is_no_mlflow(
    status: int, answering: Callable[[int], str], tmp_path: Path
) -> None:
    error = refused(answering(status), tmp_path)
    assert "correct the address or the credentials" in error


def test_a_server_of_a_version_without_models(
    answering: Callable[[int], str], tmp_path: Path
) -> None:
    error = refused(f"{answering(200)}/old", tmp_path)
    assert error.startswith("track.uri: MLflow at http://127.0.0.1")
    assert "is version 2.22.1, but must be 3 or newer" in error


def test_a_name_that_no_host_has_is_no_outage() -> None:
    """Against an error of the resolver: a machine without network cannot ask for the other."""
    for code, away in ((socket.EAI_NONAME, False), (socket.EAI_AGAIN, True)):
        error = MlflowException("failed")
        error.__cause__ = RequestsConnectionError("no such host")
        error.__cause__.__context__ = socket.gaierror(code, "no")
        assert connect_module.is_away(error) == away


def test_the_environment_is_named_where_the_uri_comes_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://host")
    assert refused(None, tmp_path).startswith("MLFLOW_TRACKING_URI: MLflow at nowhere://host")


def test_a_database_server_that_is_not_there(tmp_path: Path) -> None:
    # Without the driver it is the driver that is missing; both are for the user to mend.
    error = refused(f"postgresql://me:secret@127.0.0.1:{free_port()}/mlflow", tmp_path)
    assert "postgresql://***@127.0.0.1" in error
    assert "secret" not in error
    assert "install its Python driver" in error


@pytest.mark.parametrize("uri", ["./mlruns", "file:///tmp/mlruns", "nowhere://host"])
def test_what_mlflow_cannot_use(uri: str, tmp_path: Path) -> None:
    error = refused(uri, tmp_path)
    assert error.startswith(f"track.uri: MLflow at {uri} cannot be used: ")
    assert "it must be http(s)://HOST:PORT, sqlite:///FILE" in error


def test_half_an_address(tmp_path: Path) -> None:
    assert "is not a valid host or port" in refused("http://host:port", tmp_path)
    assert "correct the address" in refused("http://", tmp_path)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("these are not the tables of MLflow, not even of SQLite")
    error = refused(None, tmp_path)
    assert error.startswith(f"store: MLflow at sqlite:///{tmp_path}/mlflow.db cannot be used: ")
    assert "file is not a database" in error


def test_a_database_of_another_version(tmp_path: Path) -> None:
    Tracker(None, Store(tmp_path), "exp", {}).close()
    # Elsewhere: of a file that it has open MLflow asks no second time.
    other = tmp_path / "other" / "mlflow.db"
    other.parent.mkdir()
    shutil.copy(tmp_path / "mlflow.db", other)
    with closing(sqlite3.connect(other)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'acf3f17fdcc7'")
    error = refused(None, other.parent)
    shown = f"sqlite:///{other}"
    assert error.startswith(f"store: the tables of {shown} are those of another version of MLflow")
    assert f"mlflow db upgrade {shown}" in error


def test_a_folder_in_place_of_the_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    assert "unable to open database file" in refused(None, tmp_path)


def test_a_database_that_somebody_keeps_locked(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("BEGIN EXCLUSIVE")
        assert "database is locked" in refused(None, tmp_path)


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "Not a directory" in refused(None, tmp_path / "file" / "store")


OPEN = """
import sys
from pathlib import Path
sys.path.append(sys.argv[2])
from trees import Shown, node
from knife.store.store import Store
from knife.track.tracker import Tracker
store = Store(Path(sys.argv[1]))
with Tracker(None, store, "my/exp", {}) as tracker:
    Shown(tracker, store, node("demo", texts={"note.txt": "here"}))
print(tracker.experiment_id, tracker.run_id, tracker.unsent())
"""


def test_two_drivers_open_a_new_store_at_once_and_are_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "a store, 100% #1"
    environment = os.environ | {"PYTHONPATH": str(Path(connect_module.__file__).parents[2])}
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(store), str(Path(__file__).parents[1])],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [driver.communicate() for driver in drivers]
    assert [error for _, error in said] == ["", ""]
    # One experiment, one run, found or created by whoever came first.
    assert said[0][0] == said[1][0]
    assert said[0][0].startswith("1 ")
    assert sorted(path.name for path in store.iterdir()) == [
        "locks",
        "mlartifacts",
        "mlflow.db",
        "mlflow.lock",
        "runs",
        "work",
    ]
    assert list(unsent(store)) == []
    (note,) = (store / "mlartifacts").rglob("note.txt")
    assert note.read_text() == "here"
    assert not (tmp_path / "mlruns").exists()

    # A relative uri is meant from the folder of the driver; a deleted experiment is refused.
    monkeypatch.chdir(tmp_path)
    uri = "sqlite:///a store, 100%25 #1/mlflow.db"
    other = Store(tmp_path / "other")
    with Tracker(uri, other, "my/exp", {}) as tracker:
        monkeypatch.chdir("/")
        Shown(tracker, other, node("demo"))
        assert tracker.run_id == said[0][0].split()[1]
        tracker.client.delete_experiment(tracker.experiment_id)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="'my/exp' was deleted in MLflow; restore it"):
        Tracker(uri, other, "my/exp", {})
