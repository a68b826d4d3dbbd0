"""The start-up cost of every `knife` command."""

import subprocess
import sys

import pytest

import knife
from knife.cli.main import app, data_app

HEAVY = {"torch", "transformers", "mlflow", "ray", "deepspeed", "datasets", "scipy", "numpy"}


def loaded_by(*words: str) -> tuple[set[str], str]:
    """Return the top-level modules that a process of `knife WORDS…` loads, and its stdout."""
    code = (
        "import sys; sys.argv[0] = 'knife'\n"
        "from knife.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return set(done.stderr.split()), done.stdout


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["ls"], ["run", "--help"], ["submit", "--help"]]
)
def test_nothing_heavy_is_imported_to_help(words: list[str]) -> None:
    modules, out = loaded_by(*words)
    assert not modules & HEAVY
    assert out


def test_nothing_heavy_is_imported_with_the_functions() -> None:
    code = "import sys; from knife import predict, run, sweep; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    modules = {name.partition(".")[0] for name in done.stdout.split()}
    assert "knife" in modules
    assert not modules & (HEAVY | {"pydantic", "rich", "yaml"})


def test_progress_is_shown_without_mlflow() -> None:
    code = "import sys, knife.terminal.display, knife.pipeline.score; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert not {"mlflow", "ray", "deepspeed"} & set(done.stdout.split())


def test_a_dry_run_needs_neither_ray_nor_deepspeed_nor_mlflow(tmp_path: object) -> None:
    modules, _ = loaded_by("run", "demo", "--dry-run", f"store={tmp_path}/store")
    # The power of a design needs Student's exact quantiles, from scipy.
    assert not modules & {"ray", "deepspeed", "mlflow", "datasets"}


def test_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "knife", "--version"], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, f"{knife.__version__}\n")


def test_every_command_has_help() -> None:
    assert {c.callback.__name__ for c in app.registered_commands if c.callback} == {
        "run",
        "forecast",
        "probe",
        "tune",
        "submit",
        "predict",
        "push",
        "report",
        "ls",
        "cp",
        "sync",
        "ui",
        "models",
    }
    assert {c.callback.__name__ for c in data_app.registered_commands if c.callback} == {
        "check",
        "show",
        "map_columns",
        "convert",
        "score",
        "write",
    }
    for command in app.registered_commands + data_app.registered_commands:
        assert command.callback
        assert command.callback.__doc__
