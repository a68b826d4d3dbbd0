"""The promises of docs/security.md, on real processes: nothing listens beyond this machine, and no
secret gets into a record, a log or the store."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
import yaml
from command_fixtures import FinishedRun, free_port
from small_run import SMALL, wait_for

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
SECRETS = {
    "RAY_AUTH_TOKEN": "5ec2e7a0" * 8,
    "HF_TOKEN": "hf_5ecretOfTheHub",
    "MLFLOW_TRACKING_USERNAME": "5ecretUserOfMlflow",
    "MLFLOW_TRACKING_PASSWORD": "5ecretPasswordOfMlflow",
}
IN_ADDRESS = "5ecretInTheAddress"


def listening(process: psutil.Process) -> set[tuple[str, str, int]]:
    """Return program, address and port of all listening sockets of a process and its children."""
    found = set()
    for one in [process, *process.children(recursive=True)]:
        try:
            for socket_ in one.net_connections("inet"):
                bound = socket_.type == socket.SOCK_DGRAM and not socket_.raddr
                if socket_.status == psutil.CONN_LISTEN or bound:
                    found.add((one.name(), socket_.laddr.ip, socket_.laddr.port))
        except psutil.NoSuchProcess:
            continue
    return found


def watch(process: psutil.Popen, seconds: float = 600) -> set[tuple[str, str, int]]:
    """Return everything that listened at any moment until the process ended."""
    found, end = set(), time.monotonic() + seconds
    while process.poll() is None:
        assert time.monotonic() < end
        found |= listening(process)
        time.sleep(0.1)
    return found


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Yield a folder for Ray's session and logs; a socket's path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="k", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run(folder: Path, launcher: str, environment: dict[str, str], uri: str | None) -> psutil.Popen:
    config = SMALL | {"store": str(folder / "store"), "scale": {"launcher": launcher}}
    config |= {"track": {"uri": uri, "experiment": "security"}}
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    return psutil.Popen(
        [sys.executable, "-m", "knife", "run", "small.yaml"],
        cwd=folder,
        env=environment,
        stdout=(folder / "out.txt").open("w"),
        stderr=(folder / "err.txt").open("w"),
    )


def environment_of(ray_folder: Path) -> dict[str, str]:
    environment = os.environ | {"RAY_TMPDIR": str(ray_folder)}
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    return environment


@pytest.mark.faults
def test_a_run_with_ray_listens_here_alone_and_tells_no_secrets(
    tmp_path: Path, ray_folder: Path
) -> None:
    uri = f"http://somebody:{IN_ADDRESS}@127.0.0.1:9"
    environment = environment_of(ray_folder) | SECRETS | {"RAY_AUTH_MODE": "token"}
    process = run(tmp_path, "ray", environment, uri)
    found = watch(process)
    assert process.returncode == 0, (tmp_path / "err.txt").read_text()
    programs = {program for program, _, _ in found}
    assert {"raylet", "gcs_server"} <= programs
    assert any("RayTrainWorker" in program for program in programs)
    assert {one for one in found if one[1] not in LOOPBACK} == set()
    # Nothing answers at that address: this is reported, and unsent records are kept in the store.
    assert "http://***@127.0.0.1:9" in (tmp_path / "err.txt").read_text()
    assert list(ray_folder.rglob("raylet.out"))
    assert leaks(tmp_path / "store", ray_folder, tmp_path / "out.txt", tmp_path / "err.txt") == []


def leaks(*places: Path) -> list[tuple[str, Path]]:
    """Return secrets found in files, each with its file."""
    files = [
        file
        for place in places
        for file in ([place] if place.is_file() else place.rglob("*"))
        if file.is_file()
    ]
    assert len(files) > 20
    secrets = [*SECRETS.values(), IN_ADDRESS]
    return [(secret, file) for file in files for secret in secrets if secret.encode() in read(file)]


def read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def test_leaks_are_found(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.bin").write_bytes(b"\x00")
    assert leaks(tmp_path) == []
    (tmp_path / "7.bin").write_bytes(b"\x00" + SECRETS["HF_TOKEN"].encode())
    assert leaks(tmp_path) == [(SECRETS["HF_TOKEN"], tmp_path / "7.bin")]


def test_listening_sockets_are_found() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        assert ("0.0.0.0", port) in {one[1:] for one in listening(psutil.Process())}


@pytest.mark.faults
def test_a_run_in_one_process_opens_no_port_beyond_this_machine(
    tmp_path: Path, ray_folder: Path
) -> None:
    process = run(tmp_path, "process", environment_of(ray_folder), None)
    found = watch(process)
    assert process.returncode == 0, (tmp_path / "err.txt").read_text()
    assert {one for one in found if one[1] not in LOOPBACK} == set()


def test_a_server_with_credentials_is_told_them_and_nobody_else_is(
    tmp_path: Path, ray_folder: Path, finished_run: FinishedRun
) -> None:
    """The server is `knife ui`, which listens only on this machine."""
    served = tmp_path / "served"
    served.mkdir()
    shutil.copy(finished_run.store / "mlflow.db", served)
    port = free_port()
    command = [sys.executable, "-m", "knife", "ui", "--store", str(served), "--port", str(port)]
    with (tmp_path / "ui.txt").open("w") as log:
        ui = psutil.Popen(command, cwd=served, stdout=log, stderr=log)
    try:
        wait_for(lambda: port in {one[2] for one in listening(ui)}, pause=0.1)
        wait_for(lambda: answers(port), pause=0.2)
        uri = f"http://somebody:{IN_ADDRESS}@127.0.0.1:{port}"
        process = run(tmp_path, "process", environment_of(ray_folder) | SECRETS, uri)
        found = watch(process) | listening(ui)
        assert process.returncode == 0, (tmp_path / "err.txt").read_text()
        assert port in {one[2] for one in found}
        assert {one for one in found if one[1] not in LOOPBACK} == set()
    finally:
        ui.send_signal(signal.SIGINT)
        ui.wait(timeout=300)
    assert not (tmp_path / "store" / "mlflow.db").exists()
    texts = [tmp_path / name for name in ("ui.txt", "out.txt", "err.txt")]
    assert leaks(served, tmp_path / "store", *texts) == []


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
