"""Whole runs of models of recent families, with random weights: made, read again, answered with."""

from pathlib import Path
from typing import Any

import pytest
from command_fixtures import FinishedRun, finish_here, write_config
from tiny_families import decoder_config, encoder_config, save

from knife.inference.file import predict
from knife.models.tokenizer import load_tokenizer


@pytest.fixture(scope="module", params=["gemma3_text", "modernbert", "qwen3_5_text"])
def family_run(
    request: pytest.FixtureRequest,
    tiny_bert: Path,
    tiny_llama: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> FinishedRun:
    """Make a small run with both alignments."""
    encoder = request.param == "modernbert"
    tokenizer = load_tokenizer(tiny_bert if encoder else tiny_llama, "model")
    config_of = encoder_config if encoder else decoder_config
    folder = tmp_path_factory.mktemp(request.param)
    save(config_of(request.param, len(tokenizer) + 8), tokenizer, folder / "model")
    model = {name: str(folder / "model") for name in ("teacher", "student")}
    align: dict[str, Any] = {"input": {"layers": "all"}, "output": {"weight": 1}}
    return finish_here(write_config(folder, model=model, align=align, methods=["knife"]))


def test_predict_gives_the_choices_of_the_run(family_run: FinishedRun) -> None:
    student = family_run.student("knife")
    found = predict(student, family_run.test_file)
    assert found.accuracy == family_run.result["verdict"]["methods"][0]["accuracy"]
    assert list(family_run.store.glob("self-tests/*/*/facts.json")) or list(
        family_run.store.glob("self-tests/*/facts.json")
    )
