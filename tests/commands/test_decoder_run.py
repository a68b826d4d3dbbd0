"""A decoder-only teacher and student through the commands: run, predict, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_fixtures import Command, FinishedRun, finish_here, write_config
from small_run import SMALL
from transformers import AutoModelForCausalLM

from knife.core.errors import UserError
from knife.inference.file import predict


@pytest.fixture(scope="module")
def decoder_run(tiny_gpt2: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Make a small run of a GPT-2, with both alignments."""
    model = {"teacher": str(tiny_gpt2), "student": str(tiny_gpt2)}
    align: dict[str, Any] = {"input": {"layers": "all"}, "output": {"weight": 1}}
    # More than half of the positions: a choice that fits into the task input may not fit after it.
    data = SMALL["data"] | {"max_tokens": 400}
    folder = tmp_path_factory.mktemp("decoder-run")
    config = write_config(folder, model=model, align=align, methods=["knife"], data=data)
    return finish_here(config)


def test_predict_gives_the_choices_of_the_run(decoder_run: FinishedRun) -> None:
    student = decoder_run.student("knife")
    found = predict(student, decoder_run.test_file)
    assert found.accuracy == decoder_run.result["verdict"]["methods"][0]["accuracy"]
    assert AutoModelForCausalLM.from_pretrained(student / "model").config.model_type == "gpt2"


def test_a_dry_run_says_what_it_needs(command: Command, decoder_run: FinishedRun) -> None:
    found = json.loads(command("run", decoder_run.config, "--dry-run", "--json").out)
    student = AutoModelForCausalLM.from_pretrained(decoder_run.student("knife") / "model")
    assert [e["need"]["parameters"] for e in found["needs"]] == [student.num_parameters()] * 2
    shards = list(decoder_run.store.glob("states/*/shard-*"))
    assert len({path.parent for path in shards}) == 3
    size = sum(path.stat().st_size for path in shards)
    assert found["states"] == pytest.approx(size, rel=0.05)


def test_an_answer_beyond_the_positions_is_refused(
    decoder_run: FinishedRun, tmp_path: Path
) -> None:
    path = tmp_path / "long.jsonl"
    long = {"id": "long", "question": "which ?", "choices": ["fish", "forest " * 300]}
    path.write_text(json.dumps(long))
    with pytest.raises(UserError) as error:
        predict(decoder_run.student("knife"), path)
    (message,) = error.value.errors
    assert message.startswith(f"{path}:1: id 'long': with demonstrations and generated text")
    assert message.endswith(
        "but the student has positions for 506: shorten it, or leave such questions out "
        "(--skip-too-long)"
    )
