"""A Ray session on this machine: where it listens, what it needs, and what happens if it dies."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ray._common.utils import get_default_ray_temp_dir
from small_run import small_config

from knife.cluster.capacity import place_errors
from knife.cluster.local import local_errors, ray_folder

_LISTENING = """
import json, os, psutil
from knife.launch.session import session
with session(0):
    import ray
    found = []
    for process in psutil.Process().children(recursive=True):
        seen = [c.laddr.ip for c in process.net_connections("inet") if c.status == "LISTEN"]
        found.append([process.name(), seen, process.environ().get("RAY_ADDRESS")])
print(json.dumps([found, os.environ["RAY_ADDRESS"]]))
"""


@pytest.mark.parametrize("value", ["", "Local"])
def test_an_address_that_names_no_cluster_opens_nothing(value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LISTENING],
        env=os.environ | {"RAY_ADDRESS": value},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found, after = json.loads(done.stdout)
    assert {"raylet", "gcs_server"} <= {name for name, _, _ in found}
    seen = {address for _, addresses, _ in found for address in addresses}
    assert seen <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert "127.0.0.1" in seen
    # No process of Ray or of a worker interprets it differently.
    assert {inherited for _, _, inherited in found} == {None}
    assert after == value


_KILLED = """
import os, sys, time
from knife.launch.session import _Watch, in_thread, session
from knife.core.exits import exits
with exits(), session(0):
    import ray

    @ray.remote
    class Worker:
        def pid(self):
            return os.getpid()

        def work(self):
            while True:
                time.sleep(60)

    worker = Worker.options(max_restarts=3, max_task_retries=3).remote()
    pid = ray.get(worker.pid.remote())
    print(pid)
    while pid not in {process.pid for process in _Watch.now._below}:
        time.sleep(0.1)
    processes = ray._private.worker._global_node.all_processes
    os.kill(processes[sys.argv[1]][0].process.pid, 9)
    in_thread(lambda: ray.get(worker.work.remote())).result()
"""


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["raylet", "gcs_server"])
def test_the_death_of_a_session_is_said_in_one_line(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, kind], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: Ray's process {kind} (")
    assert line.endswith("finished work is kept: run the same command again to resume")
    # Ray's own workers would continue, holding their locks.
    assert not Path(f"/proc/{done.stdout.split()[0]}").exists()


_AGAIN = """
import os
from knife.launch.session import in_thread, session
from knife.core.errors import SessionLostError
for _ in range(2):
    try:
        with session(0):
            import ray
            raylet, = ray._private.worker._global_node.all_processes["raylet"]
            os.kill(raylet.process.pid, 9)
            in_thread(lambda: ray.get(ray.remote(lambda: 1).remote())).result()
    except SessionLostError as error:
        print(error)
"""


def test_a_session_that_cannot_start_is_said_in_one_line() -> None:
    begin = "from knife.launch.session import session\nfrom knife.core.exits import exits\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{begin}with exits(), session(0):\n    pass"],
        env={k: v for k, v in os.environ.items() if k != "RAY_AUTH_TOKEN"}
        | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/dev/null/x"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Ray cannot start on this machine: RAY_AUTH_TOKEN_PATH is set ")


@pytest.mark.faults
def test_a_process_begins_a_new_session_after_a_lost_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AGAIN], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Ray's process raylet (") == 2


def test_paths_too_long_for_sockets_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest accepted path is the longest that a socket can have."""
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    session = f"/ray/session_2000-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store"
    room = 107 - len(session)
    longest = "/tmp/" + "é" * ((room - 5) // 2) + "x" * ((room - 5) % 2)
    monkeypatch.setenv("TMPDIR", longest)
    assert local_errors() == []
    with socket.socket(socket.AF_UNIX) as own:
        # A path that is too long raises another error than a missing one.
        with pytest.raises(FileNotFoundError):
            own.connect(longest + session)
        with pytest.raises(OSError, match="too long"):
            own.connect(longest + "x" + session)
    monkeypatch.setenv("TMPDIR", longest + "x")
    (error,) = place_errors(small_config(tmp_path, scale={"launcher": "ray"}))
    assert error == (
        f"TMPDIR: the path {longest}x has {room + 1} bytes, but Ray's sockets below it allow at "
        f"most {room}; set RAY_TMPDIR to a shorter one, such as /tmp"
    )
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    assert local_errors() == []


def test_the_folder_of_a_session_is_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RAY_TMPDIR": "/tmp/a", "TMPDIR": "/tmp/b"}.items():
        monkeypatch.setenv(name, value)
    for name in ("RAY_TMPDIR", "TMPDIR"):
        assert str(ray_folder()) == get_default_ray_temp_dir()
        monkeypatch.delenv(name)
    assert str(ray_folder()) == get_default_ray_temp_dir() == "/tmp/ray"
    # Ray would interpret these as its working folder.
    monkeypatch.setenv("TMPDIR", " ")
    assert str(ray_folder()) == "/tmp/ray"
    monkeypatch.setenv("TMPDIR", "here")
    assert ray_folder() == Path.cwd() / "here" / "ray"


def test_folders_that_cannot_be_written_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", "/dev/null/x")
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    folder, home = local_errors()
    assert folder.startswith(
        "TMPDIR: /dev/null/x/ray, where Ray keeps its sessions, is not writable; "
    )
    assert home.startswith(
        f"HOME: {tmp_path}/file/home/.ray, where Ray keeps its token, is not writable; "
    )
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    assert local_errors() == []
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("HOME", str(tmp_path / "new"))
    assert local_errors() == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "module", ["launch.executor", "launch.jobs", "inference.workers", "tune.sweep", "tune.dry_run"]
)
def test_no_call_of_ray_starts_a_session_by_itself(module: str) -> None:
    """Ray reads this when it is imported; otherwise a call after the end of a session would look
    for a cluster for a quarter of an hour."""
    script = f"""
import knife.{module}
from ray._private import auto_init_hook
print(auto_init_hook.enable_auto_connect)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
