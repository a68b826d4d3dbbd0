"""The package's recipes: each can be loaded, listed and copied."""

import shlex
from pathlib import Path

import pytest
from command_fixtures import Command

from knife.config.recipe_files import find_config, recipes, summary
from knife.config.run import read

OVERRIDES = {
    "cose-minilm": ["data.source=x", "model.teacher=x", "model.student=x"],
}


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_loads(name: str) -> None:
    config = read(find_config(name), OVERRIDES.get(name, []))
    assert config.name == name
    assert {variant.method for variant in config.variants()} >= {"finetune", "knife"}
    for variant in config.variants():
        assert config.of(variant)


@pytest.mark.parametrize("name", recipes())
def test_a_recipes_head_says_what_it_answers_and_how_to_start_it(name: str) -> None:
    lines = recipes()[name].read_text().splitlines()
    assert summary(recipes()[name]).count("?") == 1
    head = [line.removeprefix("#").strip() for line in lines if line.startswith("#")]
    launch = shlex.split(next(line for line in head if line.startswith("knife run")), comments=True)
    assert launch[:3] == ["knife", "run", name]
    keys = [word.partition("=")[0] for word in launch[3:]]
    assert keys == [word.partition("=")[0] for word in OVERRIDES.get(name, [])]


def test_recipes_are_those_that_we_promise() -> None:
    assert set(recipes()) == {
        "demo",
        "demo-decoder",
        "creatures-full",
        "creatures-full-decoder",
        "creatures-full-encoder",
        "cose-minilm",
        "countries",
        "written",
        "strategyqa-t5-base",
        "openbookqa-t5-base",
        "openbookqa-t5-large-to-base",
    }


def test_ls_lists_names_and_questions(command: Command) -> None:
    ended = command("ls")
    assert ended.status == 0
    for line, (name, path) in zip(ended.out.splitlines(), recipes().items(), strict=True):
        assert line.split("  ")[0] == name
        assert line.endswith(summary(path))


def test_cp_copies_once_and_never_over(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = recipes()["demo"].read_text()
    assert command("cp", "demo").status == 0
    assert (tmp_path / "demo.yaml").read_text() == text
    (tmp_path / "demo.yaml").write_text("mine")
    assert command("cp", "demo").errors == ["TARGET: demo.yaml already exists; give another one"]
    assert (tmp_path / "demo.yaml").read_text() == "mine"
    assert command("cp", "demo", "other.yaml").status == 0
    assert (tmp_path / "other.yaml").read_text() == text
    assert command("cp", "demo", "no/where.yaml").errors == [
        "TARGET: no/where.yaml cannot be written: No such file or directory"
    ]
    assert command("cp", "dem").errors == ["NAME: 'dem' is not a recipe; did you mean 'demo'?"]


def test_a_recipes_name_goes_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("name: other")
    assert find_config("demo") == recipes()["demo"]
    assert find_config("./demo") == Path("demo")
