"""Run the commands of docs/tour.md, and write what they print and show into the page.

    python scripts/make_tour.py

Each `sh` block is run by bash in a new folder, in the page's order; the `text` block after it gets
its output. Headless Chromium, if installed, takes the pictures. Takes a few minutes on two cores.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tour.md"
BLOCK = re.compile(r"```sh\n(?P<commands>.*?)```\n\n```text\n(?P<output>.*?)```\n", re.DOTALL)
_END_SECONDS = 20


class Tour:
    """A folder in which the page's commands are run, block by block.

    Args:
        folder: an empty one.
        ports: ports to use instead of the page's.
    """

    def __init__(self, folder: Path, ports: dict[str, str] | None = None) -> None:
        self.folder = folder
        self._ports = ports or {}
        self._sessions: list[int] = []
        self._key = "KEY"
        for name in ("tune", "examples"):
            (folder / name).symlink_to(ROOT / name)

    def run(self, commands: str) -> str:
        """Run a block and return what it prints on stdout and stderr, in order.

        Raises:
            RuntimeError: a command failed; the message has the output.
        """
        for port, other in self._ports.items():
            commands = commands.replace(port, other)
        commands = commands.replace("student/KEY", f"student/{self._key}")
        # A file, not a pipe: background processes keep it open.
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            done = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", commands],
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._sessions.append(done.pid)
            status = done.wait()
            output.seek(0)
            text = output.read()
        if status:
            raise RuntimeError(f"status {status} of\n{commands}\n{text}")
        if found := re.search(r"student/(\w+) FILE", text):
            self._key = found.group(1)
        for port, other in self._ports.items():
            text = text.replace(other, port)
        return text.replace(f"{self.folder}/", "").rstrip("\n") + "\n"

    def close(self) -> None:
        """Stop background processes."""
        for session in self._sessions:
            with suppress(ProcessLookupError):
                os.killpg(session, signal.SIGTERM)
                end = time.monotonic() + _END_SECONDS
                while time.monotonic() < end:
                    os.killpg(session, 0)
                    time.sleep(0.1)
                os.killpg(session, signal.SIGKILL)


@contextmanager
def tour(ports: dict[str, str] | None = None) -> Iterator[Tour]:
    """Yield a tour in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="knife-tour-") as name:
        found = Tour(Path(name).resolve(), ports)
        try:
            yield found
        finally:
            found.close()


def _environment() -> dict[str, str]:
    """Return this process's environment, with its own `knife` and `python` first and no MLflow."""
    kept = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return kept | {"PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}


def pictures(done: Tour, commands: str, output: str) -> None:
    """Take the pictures that belong to the block that was just run."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        return
    if commands.startswith("knife report"):
        (page,) = done.folder.glob("knife-store/runs/tour-*/report.html")
        take(browser, page.as_uri(), "tour-report.png", "1000,700")
    if commands.startswith("knife ui"):
        (address,) = re.findall(r"http://\S+/#/\S+", output)
        take(browser, address, "tour-mlflow.png", "1500,500")


def take(browser: str, address: str, name: str, size: str) -> None:
    """Take a picture of a page after giving its scripts time to fetch and draw."""
    target = PAGE.parent / "images" / name
    target.parent.mkdir(exist_ok=True)
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    words += [f"--window-size={size}", "--virtual-time-budget=20000", f"--screenshot={target}"]
    subprocess.run([browser, *words, address], check=True, capture_output=True, timeout=300)


def written(page: str, run: Callable[[str], str]) -> str:
    """Return the page with the outputs of its commands."""

    def filled(block: re.Match[str]) -> str:
        commands = block.group("commands")
        return f"```sh\n{commands}```\n\n```text\n{run(commands)}```\n"

    return BLOCK.sub(filled, page)


def main() -> None:
    """Update the page."""

    def run(commands: str) -> str:
        print(commands, flush=True)
        output = done.run(commands)
        print(output, flush=True)
        pictures(done, commands, output)
        return output

    with tour() as done:
        page = written(PAGE.read_text(encoding="utf-8"), run)
    unfinished = PAGE.with_suffix(".tmp")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(PAGE)


if __name__ == "__main__":
    main()
