"""`knife ui`: only on this machine, and without processes left behind."""

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
from command_fixtures import Command, FinishedRun, free_port
from mlflow import MlflowClient


def test_ui_serves_the_store_on_this_machine_alone_and_leaves_no_process(
    finished_run: FinishedRun,
) -> None:
    port = free_port()
    words = ["ui", "--store", str(finished_run.store), "--port", str(port)]
    ui = subprocess.Popen(
        [sys.executable, "-m", "knife", *words], stderr=subprocess.PIPE, text=True
    )
    assert ui.stderr
    line = ui.stderr.readline()
    url = re.search(rf"(http://127\.0\.0\.1:{port}/)(#/experiments/(\d+)/runs\?\S+) ", line)
    assert url, line
    client = MlflowClient(f"sqlite:///{finished_run.store / 'mlflow.db'}")
    assert client.search_runs([url.group(3)])
    page = wait_for_page(url.group(1))
    assert "<title>MLflow</title>" in page
    children = psutil.Process(ui.pid).children(recursive=True)
    assert children
    listening = {
        connection.laddr.ip
        for process in children
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    ui.send_signal(signal.SIGINT)
    assert ui.wait(timeout=300) == 130
    gone, alive = psutil.wait_procs(children, timeout=300)
    assert not alive, gone


def wait_for_page(url: str) -> str:
    end = time.monotonic() + 300
    while True:
        try:
            with urllib.request.urlopen(url, timeout=30) as page:
                text: str = page.read().decode()
                return text
        except OSError:
            assert time.monotonic() < end, "the UI did not come up"
            time.sleep(0.5)


def test_user_errors(command: Command, finished_run: FinishedRun, tmp_path: Path) -> None:
    (error,) = command("ui", "--store", tmp_path).errors
    assert "has no mlflow.db" in error
    (tmp_path / "mlflow.db").write_text("these are not the tables of MLflow, not even of SQLite")
    (error,) = command("ui", "--store", tmp_path, "--port", free_port()).errors
    assert "file is not a database" in error
    assert error.startswith(f"--store: MLflow at sqlite:///{tmp_path}/mlflow.db cannot be used: ")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (error,) = command("ui", "--store", finished_run.store, "--port", port).errors
        assert error.startswith(f"--port: {port} on 127.0.0.1 cannot be used")
