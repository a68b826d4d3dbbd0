"""A sweep as a Ray job, as a user submits it: on a cluster that is up, from a folder of files."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from command_fixtures import free_port
from small_run import wait_for

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
SMALL = [
    "data.world.train=40",
    "data.world.dev=20",
    "data.world.test=20",
    "teacher.epochs=1",
    "student.epochs=1",
    "budget.trials=2",
    "scheduler.grace=1",
    "final=null",
]


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """The dashboard's address of a cluster of 2 CPUs, and the environment to reach it with."""
    dashboard, port = free_port(), free_port()
    # One mode for all: else a job is refused that comes without the token of a local session.
    # The job's `python` is the one that these tests run with.
    binaries = str(Path(sys.executable).parent)
    environment = os.environ | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{binaries}:{os.environ['PATH']}",
    }
    environment.pop("RAY_ADDRESS", None)
    log = tmp_path_factory.mktemp("cluster") / "head.log"
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1"]
    command += [f"--port={port}", f"--dashboard-port={dashboard}"]
    with log.open("w") as output:
        head = psutil.Popen(command, env=environment, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{dashboard}"

    def answers() -> bool:
        assert head.poll() is None, log.read_text()
        command = [RAY, "job", "list", "--address", address]
        return subprocess.run(command, env=environment, capture_output=True).returncode == 0

    try:
        wait_for(answers, 120, pause=0.5)
        yield address, environment
    finally:
        for process in [*head.children(recursive=True), head]:
            process.kill()


def test_a_sweep_runs_as_a_ray_job(cluster: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    address, environment = cluster
    # What a user has in the folder: the sweep. The package is installed on the cluster.
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "smoke.yaml").write_text((ROOT / "tune" / "smoke.yaml").read_text())
    store = tmp_path / "store"
    command = [RAY, "job", "submit", "--address", address, "--working-dir", str(tmp_path), "--"]
    command += ["python", "-m", "knife", "tune", "tune/smoke.yaml", *SMALL, f"store={store}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[2/2] trial" in done.stdout
    assert (store / "sweeps" / "smoke" / "best.yaml").is_file()
    assert len(list((store / "teacher").iterdir())) == 1
