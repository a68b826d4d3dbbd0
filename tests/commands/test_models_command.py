"""`knife models` says what a model is, and refuses one that would be wrong."""

from pathlib import Path

import pytest
from command_fixtures import Command
from tiny_families import encoder_config, save, save_decoder

from knife.models.tokenizer import load_tokenizer


@pytest.mark.parametrize(
    ("kind", "way"),
    [("qwen3", "decoder, one sequence"), ("lfm2", "decoder, two readings")],
)
def test_what_a_model_is(
    command: Command, tiny_llama: Path, tmp_path: Path, kind: str, way: str
) -> None:
    save_decoder(kind, tiny_llama, tmp_path)
    ended = command("models", tmp_path, "--max-tokens", 200)
    assert ended.status == 0
    lines = dict(line.split(": ", 1) for line in ended.out.splitlines())
    found = {name: value.strip() for name, value in lines.items()}
    assert found["model"] == str(tmp_path)
    assert found["family"] == kind
    assert found["read as"] == way
    assert "layers of width 32" in found["size"]
    assert found["weights"].startswith("100 % of ")
    assert found["positions"] == "512"
    assert found["self-test"].startswith("passed with texts of up to 200 tokens")
    assert found["training"].startswith("about ")


def test_a_model_that_would_be_wrong(command: Command, tiny_bert: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert, "model")
    save(encoder_config("nystromformer", len(tokenizer) + 8), tokenizer, tmp_path)
    ended = command("models", tmp_path)
    assert ended.status == 2
    assert ended.out == ""
    (error,) = ended.errors
    assert error.startswith(
        "MODEL: 'nystromformer' models cannot be used: what it reads depends on padding"
    )
