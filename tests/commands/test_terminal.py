"""Progress in a real terminal (a pty), resized during a small run; the output of `--quiet`."""

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_fixtures import Command, FinishedRun, write_config
from rich.console import Console
from rich.text import Text
from small_run import wait_for

from knife.config.run import read
from knife.core.exits import say
from knife.plan.events import Made, Started
from knife.plan.pace import Pace
from knife.plan.plan import plan_run
from knife.plan.schedule import Work
from knife.terminal.console import can_draw, drawn, progress_console
from knife.terminal.display import display

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Terminal:
    """A pty of this process: what is written to its other end is read here."""

    near: int
    far: int
    data: bytes = b""

    @property
    def text(self) -> str:
        return self.data.decode()

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.far, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> None:
        """Read what is available; nothing once the other end is closed."""
        while True:
            try:
                self.data += os.read(self.near, 65536)
            except OSError:
                return

    def shows(self, text: str) -> bool:
        self.read()
        return text in _ESCAPES.sub("", self.data.decode(errors="ignore"))

    def lines(self) -> list[str]:
        """Return every line that was ever drawn or printed."""
        return [_ESCAPES.sub("", line) for line in re.split(r"[\r\n]+", self.text)]


@pytest.fixture
def terminal() -> Terminal:
    near, far = pty.openpty()
    os.set_blocking(near, False)
    found = Terminal(near, far)
    found.resize(40, 24)
    return found


def test_a_run_in_a_narrow_terminal_that_is_resized(terminal: Terminal, tmp_path: Path) -> None:
    config = write_config(tmp_path, methods=["knife"], student={"epochs": 20, "batch_size": 20})
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "knife", "run", config, "--json"],
        stdin=terminal.far,
        stdout=subprocess.PIPE,
        stderr=terminal.far,
        env=kept | {"TERM": "xterm"},
        text=True,
    )
    wait_for(lambda: terminal.shows("1/6 teacher: dev "))
    narrow = len(terminal.lines())
    terminal.resize(100, 10)

    def ended() -> bool:
        # The buffer of an unread terminal fills in a few seconds, and then blocks the run.
        terminal.read()
        return process.poll() is not None

    wait_for(ended)
    terminal.read()
    assert process.stdout
    assert process.returncode == 0, terminal.text
    result = json.loads(process.stdout.read())
    # Cursor and colours are restored.
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
    lines = terminal.lines()
    link = f"MLflow: knife ui --store {tmp_path / 'store'}"
    assert lines[:2] == ["6 of 6 stages to make, in this process; starting …", link]
    assert lines[-2] == link
    drawings = lines[2:narrow]
    assert max(map(len, drawings)) <= 40
    assert any(re.fullmatch(r"  ━*─* \d+/4.*", line) for line in drawings)
    for number, made in enumerate(result["made"], start=1):
        assert sum(line.startswith(f"✓ {number}/6 {made['label']}: ") for line in lines) == 1
    stage = r"  (test )?(teacher|finetune|knife)"
    ours = rf"✓ |. \d of 6 stages done|  [━─]|{stage}|writing |verdict|a student"
    for line in lines[2:-2]:
        assert not line or re.match(ours, line), line


def test_quiet_is_the_result_alone(
    command: Command, finished_run: FinishedRun, tmp_path: Path
) -> None:
    store = shutil.copytree(finished_run.store, tmp_path / "store")
    ended = command(
        "run", finished_run.config, "--quiet", f"store={store}", "seeds=[1]", "methods=[finetune]"
    )
    assert (ended.status, ended.err) == (0, "")
    assert "finetune answers " in ended.out
    assert len(list((store / "student").iterdir())) == 3
    assert command("run", finished_run.config, "-q", "seeds=x").errors


def test_a_reader_that_has_gone_stops_nothing(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_run(read(finished_run.config, [f"store={tmp_path / 'store'}"]))
    reading, writing = os.pipe()
    os.close(reading)
    broken = os.fdopen(writing, "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", broken)
    with display(plan.stages, plan, Pace(plan.data)) as show:
        stage = plan.stages[0]
        work = Work([stage])
        show(Started(work, 0))
        source = finished_run.store / stage.kind / stage.key
        shutil.copytree(source, Path(plan.config.store) / stage.kind / stage.key)
        show(Made(work, 0))
    say("last words")
    monkeypatch.undo()
    with pytest.raises(BrokenPipeError):
        broken.close()


@pytest.mark.parametrize(
    ("settings", "draws"),
    [({}, True), ({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, False)],
    ids=["plain", "no-color", "dumb"],
)
def test_what_is_drawn_on(
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, str],
    draws: bool,
) -> None:
    for name, value in ({"TERM": "xterm", "NO_COLOR": ""} | settings).items():
        monkeypatch.setenv(name, value)
    with os.fdopen(os.dup(terminal.far), "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        console = progress_console()
        assert can_draw(console) == draws
        assert not can_draw(progress_console(quiet=True))
        console.print("[green]words[/green]")
        terminal.read()
        assert ("\x1b[32m" in terminal.text) == (draws and not settings)
        monkeypatch.undo()


def test_a_log_is_no_terminal_whatever_its_colours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with (tmp_path / "log").open("w") as log:
        monkeypatch.setattr(sys, "stderr", log)
        console = progress_console()
        assert console.is_terminal
        assert not can_draw(console)
        monkeypatch.undo()


def test_more_lines_than_a_terminal_has_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(force_terminal=True, width=40, height=10)
    with drawn(console, lambda: [Text(f"trial {number} " + 40 * "x") for number in range(200)]):
        pass
    lines = [_ESCAPES.sub("", line) for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 40
    assert "  … and 193 more lines" in lines
    assert not any(line.startswith("trial 7 ") for line in lines)
