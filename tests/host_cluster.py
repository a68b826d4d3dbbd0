"""Several hosts on this machine, made by cluster/hosts.sh, and runs on them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from job import SECONDS, Job, parent
from small_run import wait_for

SCRIPT = Path(__file__).parents[1] / "cluster" / "hosts.sh"

# Ray gives up a host after 16 s of silence, or after 4 if it refuses connections: sooner than with
# the script's settings, which tolerate a cut of 30 s.
QUICK = {
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_grpc_keepalive_timeout_ms": "20000",
}

needs_hosts = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="hosts are network namespaces, which need root and iproute2",
)


@dataclass(frozen=True)
class Hosts:
    """Host 1 has the head of a Ray cluster, without CPUs for workers; the others have one each."""

    name: str
    number: int
    environment: dict[str, str]

    def __call__(self, *words: str) -> str:
        """Run a command of the script, and return what it prints."""
        done = subprocess.run(
            [str(SCRIPT), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    @property
    def dashboard(self) -> str:
        return f"http://{self('address', '1')}:8265"

    def popen(self, host: int, *command: str, **options: Any) -> psutil.Popen:
        """Start a command on a host."""
        words = [str(SCRIPT), "exec", str(host), *command]
        return psutil.Popen(words, env=self.environment, **options)

    def processes(self, host: int, words: str) -> list[psutil.Process]:
        """Return the processes on a host whose command contains some words."""
        pids = subprocess.check_output(["ip", "netns", "pids", f"{self.name}-{host}"], text=True)
        found = []
        for pid in pids.split():
            with suppress(psutil.Error):
                process = psutil.Process(int(pid))
                if words in " ".join(process.cmdline()):
                    found.append(process)
        # A process that starts a command is briefly two of the same name.
        found_ids = {process.pid for process in found}
        return [process for process in found if parent(process) not in found_ids]

    def workers(self) -> dict[int, list[psutil.Process]]:
        """Return Ray's train workers by host."""
        found = {host: self.processes(host, "RayTrainWorker") for host in range(2, self.number + 1)}
        return {host: workers for host, workers in found.items() if workers}

    def start_patiently(self) -> None:
        """Restart Ray on all hosts, with the settings of the script."""
        for name in QUICK:
            self.environment.pop(name, None)
        for host in range(1, self.number + 1):
            self("kill", str(host))
        self("start", "1", "--cpus", "0")
        self.repair()

    def repair(self) -> None:
        """Wait until no worker is left, reconnect every network and start Ray where it is down."""
        for host in range(2, self.number + 1):
            self("heal", str(host))
        wait_for(lambda: not self.workers(), SECONDS, pause=0.2)
        for host in range(2, self.number + 1):
            if not self.processes(host, "/raylet "):
                self("kill", str(host))
                self("start", str(host))


@pytest.fixture(scope="module")
def hosts(request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """Yield as many hosts as the module's HOSTS says, with Ray running on all."""
    binaries = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        **QUICK,
        "KNIFE_HOSTS": f"k{os.getpid()}",
        "PATH": f"{binaries}:{os.environ['PATH']}",
        # The same mode everywhere, as in the cluster of other tests.
        "RAY_AUTH_MODE": "disabled",
    }
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    hosts = Hosts(environment["KNIFE_HOSTS"], request.module.HOSTS, environment)
    try:
        hosts("up", str(hosts.number))
        hosts("start", "1", "--cpus", "0")
        hosts.repair()
        yield hosts
    finally:
        hosts("down")


@dataclass
class HostsRun(Job):
    """`knife run` of a small config on host 1, started repeatedly on one store."""

    hosts: Hosts = field(kw_only=True)

    def _popen(self, *command: str, **options: Any) -> psutil.Popen:
        address = f"RAY_ADDRESS={self.hosts('address', '1')}:6379"
        return self.hosts.popen(1, "env", address, *command, **options)

    def kill(self) -> None:
        """Kill what still runs, and prepare the hosts for the next run."""
        super().kill()
        for driver in self.drivers:
            driver.wait()
        self.hosts.repair()
