"""The MLflow UI of a store, for this machine only."""

import os
import signal
import socket
import subprocess
import sys

from knife.core.errors import UserError
from knife.core.exits import say
from knife.store.store import Store, store_root
from knife.track.destination import unsent
from knife.track.settings import mlflow_settings

HOST = "127.0.0.1"


def serve(store: str, port: int) -> int:
    """Serve the UI until it ends or is interrupted; return its exit status.

    Raises:
        UserError: the store has no usable MLflow database, or the port is taken.
    """
    database = store_root(store) / "mlflow.db"
    if not database.is_file():
        raise UserError(
            f"--store: {store} has no mlflow.db; give the store of a run (knife ui --store "
            "FOLDER). A run whose track.uri is set is recorded there and not in its store"
        )
    if next(unsent(store_root(store)), None):
        # Dead processes' runs would be shown as running.
        with mlflow_settings():
            from knife.track.catch_up import catch_up
        from knife.tune.progress.sweep_tree import TREES

        catch_up(Store(store, write=False), TREES)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"--port: {port} on {HOST} cannot be used: {error.strerror}; give another port"
            ) from error
    from knife.track.address import in_store

    address = in_store(database.parent, "--store")
    with mlflow_settings():
        from knife.track.page import newest_page

        page = f"http://{HOST}:{port}{newest_page(address)}"
    say(f"MLflow UI of {store}: {page} (ready in a few seconds; Ctrl-C stops it)")
    command = [sys.executable, "-m", "mlflow", "ui"]
    command += ["--backend-store-uri", address.uri, "--registry-store-uri", address.uri]
    command += ["--host", HOST, "--port", str(port)]
    # For one user: one worker, no background jobs, and only errors in the terminal.
    command += ["--workers", "1", "--uvicorn-opts", "--log-level error"]
    environment = os.environ | {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore",
    }
    # In its own session, so that its children can be ended with it.
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return server.wait()
    finally:
        _end(server)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """Stop the server and every process that it started."""
    for number, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        try:
            server.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            continue
