"""A signal at any moment ends a command with the right status and message."""

import subprocess
import sys

import pytest

# The signal arrives while a destructor runs, whose exceptions Python only prints.
PROGRAM = """
import os, signal, threading
from knife.core.exits import exits

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        for _ in range(1000):
            pass

with exits("resume from here"):
    last = Last()
    del last
    threading.Event().wait(60)
    print("the work went on")
"""


@pytest.mark.parametrize(
    ("name", "status", "words"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_a_signal_in_a_destructor_ends_the_work(name: str, status: int, words: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(name=name)], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (status, "")
    assert ended.stderr.split("\n") == ["", words, "resume from here", ""]
