"""Commands that are printed for copying into a shell."""

import subprocess
from pathlib import Path

import pytest

from knife.core.words import command_line


@pytest.mark.parametrize(
    "name",
    ["plain", "two words", "it's", 'a "quote"', "$HOME", "a;b", "*", "`id`", "new\nline", "é"],
)
def test_a_shell_reads_a_path_as_it_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    shown = command_line("printf", "%s", path)
    done = subprocess.run(shown, shell=True, capture_output=True, text=True)
    assert done.stdout == str(path)


def test_a_path_is_no_option() -> None:
    assert command_line("knife", "run", "-x.yaml") == "knife run ./-x.yaml"
    assert command_line("knife", "ui", "--store", Path("-s")) == "knife ui --store ./-s"
    assert command_line("knife", "predict", "s3://b/x", "FILE") == "knife predict s3://b/x FILE"
