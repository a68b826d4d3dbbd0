"""Runs of encoder-decoders that decode each choice as a row of its own, through the commands."""

from typing import Any

import pytest
from command_fixtures import FinishedRun, finish_here, write_config
from small import EXAMPLES
from small_run import SMALL
from small_seq2seq import save_seq2seq
from transformers import AutoModelForSeq2SeqLM

from knife.inference.file import predict


@pytest.fixture(scope="module", params=["bart", "t5gemma2"])
def seq2seq_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, FinishedRun]:
    """Make a small run of a tiny random model, with both alignments and a method that writes."""
    folder = tmp_path_factory.mktemp(request.param)
    model = str(save_seq2seq(request.param, folder / "model", EXAMPLES))
    align: dict[str, Any] = {"input": {"layers": "all"}, "output": {"weight": 1}}
    config = write_config(
        folder,
        model={"teacher": model, "student": model},
        align=align,
        methods=["knife", "explain_then_answer"],
        data=SMALL["data"],
        student=SMALL["student"] | {"epochs": 1},
    )
    return request.param, finish_here(config)


@pytest.mark.parametrize("method", ["knife", "explain_then_answer"])
def test_predict_gives_the_choices_of_the_run(
    seq2seq_run: tuple[str, FinishedRun], method: str
) -> None:
    kind, run = seq2seq_run
    found = predict(run.student(method), run.test_file)
    recorded = {row["method"]: row["accuracy"] for row in run.result["verdict"]["methods"]}
    assert found.accuracy == recorded[method]
    model = AutoModelForSeq2SeqLM.from_pretrained(run.student(method) / "model")
    assert model.config.model_type == kind
    # Plain transformers would score these choices with other tokens around them.
    assert "def score(" not in (run.student(method) / "README.md").read_text()
