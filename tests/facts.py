"""The demonstration's server of facts as a process, and what it counts."""

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from small_run import wait_for

from knife.config.run import World
from knife.data.creatures import creatures
from knife.data.example import Example
from knife.data.examples import Examples
from knife.data.jsonl import write_examples

SERVER = Path(__file__).parents[1] / "examples" / "facts_server.py"
KEY = "sk-very-secret-0123456789"


@dataclass(frozen=True)
class Facts:
    """A server that answers.

    Attributes:
        url: its address.
    """

    url: str

    def counts(self) -> dict[str, int]:
        """Return how many requests came, were answered, and were answered again."""
        with urllib.request.urlopen(self.url.replace("/v1", "/counts")) as response:
            found: dict[str, int] = json.loads(response.read())
        return found

    @property
    def words(self) -> list[str]:
        """The settings that name it."""
        return [f"write.url={self.url}", "write.model=facts"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextmanager
def facts_server(*options: str) -> Iterator[Facts]:
    """Serve the facts of the world with seed 0."""
    port = free_port()
    command = [sys.executable, str(SERVER), "--port", str(port), *options]
    with subprocess.Popen(command) as process:
        try:
            wait_for(lambda: process.poll() is not None or listens(port))
            yield Facts(f"http://127.0.0.1:{port}/v1")
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


def questions(path: Path, train: int, dev: int = 4, test: int = 4) -> Path:
    """Write a folder of questions without rationales."""
    path.mkdir()
    splits = creatures(World(train=train, dev=dev, test=test))
    for name, examples in splits.parts.items():
        bare = Examples.of(examples).with_rationales(None for _ in examples)
        write_examples(path / f"{name}.jsonl", bare)
    return path


def example(**changes: object) -> Example:
    values = {
        "id": "1",
        "question": "do a dog and a cat both bark ?",
        "choices": ("yes", "no"),
        "answer": 1,
    }
    return Example(**(values | changes))  # type: ignore[arg-type]
