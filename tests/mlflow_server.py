"""A real `mlflow server` on SQLite, only on 127.0.0.1, that can be killed and restarted."""

import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from command_fixtures import free_port
from small_run import wait_for


@dataclass
class MlflowServer:
    """The server of a folder, which contains its database and artifacts."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def uri(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database(self) -> Path:
        """The file with its runs."""
        return self.folder / "server.db"

    def start(self) -> None:
        """Start the server; it answers a few seconds later."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.database}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        settings = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | settings,
                stdout=log,
                stderr=log,
                # In a session, so that its children are killed with it.
                start_new_session=True,
            )

    def answers(self) -> bool:
        """Whether the server answers."""
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def wait(self) -> None:
        """Wait until the server answers."""
        wait_for(self.answers, seconds=180, pause=0.1)

    def kill(self) -> None:
        """Kill the server and its children with SIGKILL, if it runs."""
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
