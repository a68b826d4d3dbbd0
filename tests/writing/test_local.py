"""A model of a folder: where its texts end, and what it is padded with."""

import json
from pathlib import Path

import pytest
from facts import example
from transformers import AutoTokenizer

from knife.config.write import Write
from knife.models.source import EMBEDDED
from knife.writing.asking import Spent
from knife.writing.kept import Keeper, Kept
from knife.writing.local import LocalAsker
from knife.writing.prompt import read_prompt
from knife.writing.request import requests


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Copy the tiny Llama."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in EMBEDDED["tiny-llama"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def written(model: Path, folder: Path, count: int = 3) -> Kept:
    folder.mkdir()
    settings = Write(model=str(model), max_tokens=40, temperature=0, in_flight=2)
    prompt = read_prompt("builtin", "answer", [], example())
    some = [example(id=str(n), question=f"do a dog and {n} cats bark ?") for n in range(count)]
    asker = LocalAsker(settings, model, prompt, Keeper(folder), Spent(settings, 0, 0))
    assert asker.ask(list(requests(settings, "m", prompt, some))).answered == count
    return Kept(folder)


def test_a_text_ends_where_the_model_says(model: Path, tmp_path: Path) -> None:
    """As models of chats do: by a token that is not the tokenizer's end of a text."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    plain = written(model, tmp_path / "plain")
    assert any("." in answer.text[:-1] for answer in plain.answers.values())
    stop = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("a frog .")[-1])
    ends = {"eos_token_id": [tokenizer.eos_token_id, stop], "pad_token_id": 0}
    (model / "generation_config.json").write_text(json.dumps(ends))
    for answer in written(model, tmp_path / "ended").answers.values():
        assert answer.finish == "stop"
        assert "." not in answer.text
        assert 0 < answer.written < 40
        assert plain.answers[answer.key].text.startswith(answer.text)


def test_a_model_without_a_padding_token_writes_the_same(model: Path, tmp_path: Path) -> None:
    before = written(model, tmp_path / "before")
    path = model / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["pad_token"]
    path.write_text(json.dumps(settings))
    assert AutoTokenizer.from_pretrained(model).pad_token_id is None
    after = written(model, tmp_path / "after")
    texts = [{k: a.text for k, a in kept.answers.items()} for kept in (before, after)]
    assert texts[0] == texts[1]
