"""A real Ray cluster on this machine, made by `ray start --head`, one per test module."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from command_fixtures import free_port
from small_run import wait_for

RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Cluster:
    """A cluster of 2 CPUs.

    Attributes:
        address: its dashboard's.
        head: what RAY_ADDRESS names.
        environment: the environment to reach it with.
    """

    address: str
    head: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield a cluster without tokens, whose jobs use the `python` that these tests run with."""
    dashboard, port, agent = free_port(), free_port(), free_port()
    # No tokens anywhere: otherwise a job without the token of a local session is refused.
    binaries = str(Path(sys.executable).parent)
    environment = os.environ | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{binaries}:{os.environ['PATH']}",
    }
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    log = tmp_path_factory.mktemp("cluster") / "head.log"
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1"]
    command += [f"--port={port}", f"--dashboard-port={dashboard}"]
    # At the default port, only one cluster per machine could accept jobs.
    command += [f"--dashboard-agent-listen-port={agent}"]
    with log.open("w") as output:
        head = psutil.Popen(command, env=environment, stdout=output, stderr=output)
    address = f"http://127.0.0.1:{dashboard}"

    def answers() -> bool:
        assert head.poll() is None, log.read_text()
        try:
            with urlopen(f"{address}/api/jobs/", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_for(answers, pause=0.1)
        yield Cluster(address, f"127.0.0.1:{port}", environment)
    finally:
        for process in [*head.children(recursive=True), head]:
            process.kill()
