"""docs/rationales.md has every setting with its default, every reason, and a prompt that works."""

import re
from pathlib import Path

import yaml
from facts import example
from pydantic import BaseModel

from knife.config.write import Write
from knife.writing import filters
from knife.writing.prompt import read_prompt

PAGE = (Path(__file__).parents[2] / "docs" / "rationales.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found.group(1)


def defaults(of: type[BaseModel], before: str = "") -> dict[str, object]:
    """Return the dotted keys of a section and of those in it, with their defaults."""
    found: dict[str, object] = {}
    for name, field in of.model_fields.items():
        value = field.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            found |= defaults(type(value), f"{before}{name}.")
        else:
            found[f"{before}{name}"] = "must be set" if field.is_required() else value
    return found


def test_every_setting_is_there_with_its_default() -> None:
    rows = re.findall(r"^\| (`.+?) \| (.+?) \| .+ \|$", section("Settings"), re.MULTILINE)
    told = {
        key: yaml.safe_load(value.strip("`"))
        for keys, value in rows
        if keys != "key of `write`"
        for key in re.findall(r"`(.+?)`", keys)
    }
    for key, value in defaults(Write).items():
        assert told.pop(key) == (list(value) if isinstance(value, tuple) else value), key
    assert told == {}


def test_every_reason_is_there() -> None:
    rows = re.findall(r"^\| (.+?) \|", section("Which texts are kept"), re.MULTILINE)
    reasons = [v for name, v in vars(filters).items() if name.isupper() and isinstance(v, str)]
    assert len(reasons) == 10
    assert set(reasons) - {one for row in rows for one in row.split(", ")} == set()


def test_the_prompt_can_be_used(tmp_path: Path) -> None:
    found = re.search(r"```text\n(You are .+?)```", PAGE, re.DOTALL)
    assert found
    path = tmp_path / "prompt.txt"
    path.write_text(found.group(1))
    assert read_prompt(str(path), "answer", [], example()).text == found.group(1)
