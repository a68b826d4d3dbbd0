"""Fixtures of the tests of commands: `knife` in this process, and one finished small run."""

import json
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_run import SMALL

from knife import run
from knife.cli.main import main
from knife.data.examples import Examples
from knife.data.jsonl import write_examples


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit status, stdout and stderr."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """Return the lines of stderr, which must all be user errors."""
        lines = self.err.splitlines()
        assert lines
        assert all(line.startswith("error: ") for line in lines), self.err
        assert self.status == 2
        assert self.out == ""
        return [line.removeprefix("error: ") for line in lines]


Command = Callable[..., Ended]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that runs `knife WORDS…` in this process."""

    def call(*words: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["knife", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        code = end.value.code
        return Ended(code if isinstance(code, int) else 0, out, err)

    return call


@dataclass(frozen=True)
class FinishedRun:
    """A run that was made by a separate process.

    Attributes:
        config: its YAML file.
        store: its store.
        result: its JSON document.
        stdout, stderr: its whole output.
    """

    config: Path
    store: Path
    result: dict[str, Any]
    stdout: str
    stderr: str

    def student(self, method: str) -> Path:
        """Return the folder of a method's student."""
        return next(Path(s["folder"]) for s in self.result["students"] if s["method"] == method)

    @property
    def test_file(self) -> Path:
        """Write the test split as JSON Lines beside the store; return that file."""
        path = self.store.parent / "test-split.jsonl"
        write_examples(path, Examples.open(next(self.store.glob("data/*/test.arrow"))))
        return path


def free_port() -> int:
    """Return a free port outside the range that the system assigns to connections: another process
    might get one of those before we listen on it."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def write_config(folder: Path, **changes: Any) -> Path:
    """Write a small run config as a YAML file, with its store beside it."""
    values = SMALL | {"methods": ["finetune", "knife"], "store": str(folder / "store")} | changes
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Make one small run, finetune and knife with one seed; tests may read its store."""
    return finish(write_config(tmp_path_factory.mktemp("finished-run")))


def finish_here(config: Path) -> FinishedRun:
    """Run a config in this process, without output."""
    result = json.loads(json.dumps(run(config).to_dict()))
    return FinishedRun(config, config.parent / "store", result, "", "")


def finish(config: Path) -> FinishedRun:
    """Run `knife run` on a config and wait for its end."""
    done = subprocess.run(
        [sys.executable, "-m", "knife", "run", config, "--json"],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    return FinishedRun(config, config.parent / "store", result, done.stdout, done.stderr)
