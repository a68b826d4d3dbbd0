"""How many tokens a model can read: the limit works, and one more does not."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small import EXAMPLES, batch_of, tokens_of
from small_run import small_config
from transformers import (
    AlbertConfig,
    AutoTokenizer,
    BertConfig,
    CamembertConfig,
    Data2VecTextConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    EuroBertConfig,
    GPT2Config,
    LlamaConfig,
    LongformerConfig,
    MistralConfig,
    ModernBertConfig,
    MPNetConfig,
    Phi3Config,
    RobertaConfig,
    RobertaModel,
    T5Config,
    XLMRobertaConfig,
)

from knife.core.errors import UserError
from knife.models.families import model_class
from knife.models.load import load_backbone
from knife.models.positions import positions
from knife.plan.plan import plan_run

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
# Tables of 40 rows; in RoBERTa and similar models, rows up to padding serve no token.
TABLES = [
    (BertConfig, {}, 40),
    (ElectraConfig, {}, 40),
    (DistilBertConfig, {}, 40),
    (AlbertConfig, {"embedding_size": 8}, 40),
    (DebertaV2Config, {}, 40),
    (GPT2Config, {}, 40),
    (RobertaConfig, {"pad_token_id": 1}, 38),
    (RobertaConfig, {"pad_token_id": 0}, 39),
    (XLMRobertaConfig, {"pad_token_id": 1}, 38),
    (CamembertConfig, {"pad_token_id": 1}, 38),
    (Data2VecTextConfig, {"pad_token_id": 1}, 38),
    (MPNetConfig, {"pad_token_id": 1}, 38),
    (LongformerConfig, {"pad_token_id": 1, "attention_window": 4}, 38),
    (LongformerConfig, {"pad_token_id": 1, "attention_window": [4, 4]}, 38),
]
# No table: the length they were made for, unless a window hides what is farther away.
FREE = [
    (T5Config, {}, None),
    (LlamaConfig, {}, 40),
    # A window bounds what a token sees, and not the text.
    (MistralConfig, {"sliding_window": 30, "num_key_value_heads": 2}, 40),
    (EuroBertConfig, {"pad_token_id": 0}, 40),
    (ModernBertConfig, {"local_attention": 8, "pad_token_id": 0}, 40),
    (DebertaV2Config, {"position_biased_input": False, "relative_attention": True}, 40),
]


def read(config: Any, length: int) -> torch.Tensor:
    """Return the states of a text of some length, by a model with random weights."""
    model = model_class(config)(config).eval()
    ids = torch.arange(length).remainder(7)[None] + 5
    with torch.no_grad():
        states: torch.Tensor = model.base_model(input_ids=ids).last_hidden_state
    return states


def made(kind: Any, values: dict[str, Any]) -> Any:
    return kind(**SMALL | values, **({} if kind is T5Config else {"max_position_embeddings": 40}))


@pytest.mark.parametrize(("kind", "values", "expected"), TABLES)
def test_a_table_serves_as_many_tokens_as_it_has_rows_for(
    kind: Any, values: dict[str, Any], expected: int
) -> None:
    config = made(kind, values)
    assert positions(config) == expected
    assert read(config, expected).shape[1] == expected
    with pytest.raises((IndexError, RuntimeError)):
        read(config, expected + 1)


@pytest.mark.parametrize(("kind", "values", "expected"), FREE)
def test_without_a_table_a_model_reads_what_it_was_made_for(
    kind: Any, values: dict[str, Any], expected: int | None
) -> None:
    config = made(kind, values)
    assert positions(config) == expected
    if expected:
        assert read(config, expected).isfinite().all()


def test_a_rope_that_changes_with_the_longest_text_is_not_reached() -> None:
    """Beyond `original_max_position_embeddings`, a text's scores would depend on its batch."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    config = Phi3Config(
        **SMALL, max_position_embeddings=400, original_max_position_embeddings=40,
        rope_parameters=rope | {"rope_theta": 1e4}, pad_token_id=0,
    )  # fmt: skip
    assert positions(config) == 40


@pytest.fixture
def roberta(tiny_bert: Path, tmp_path: Path) -> tuple[Path, int]:
    """Return a RoBERTa with exactly the positions for the longest example, and their number."""
    folder = shutil.copytree(tiny_bert, tmp_path / "roberta")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens, _ = tokens_of(folder, EXAMPLES)
    longest = max(len(t.input_ids) + len(t.rationale_ids) for t in tokens)
    pad = tokenizer.pad_token_id
    config = RobertaConfig(
        **SMALL | {"vocab_size": len(tokenizer)},
        max_position_embeddings=longest + pad + 1,
        type_vocab_size=1,
        pad_token_id=pad,
    )
    RobertaModel(config).save_pretrained(folder)
    return folder, longest


def test_the_limit_that_a_plan_accepts_can_be_trained(roberta: tuple[Path, int]) -> None:
    folder, longest = roberta
    backbone: Any = load_backbone(folder).train()
    assert positions(backbone.encoder.config) == longest
    tokens, pad = tokens_of(folder, EXAMPLES)
    # Together with shorter ones, which are padded.
    batch = batch_of(tokens, pad, rationale=True)
    assert batch.ids_BL.shape[1] == longest
    backbone(batch).scores_BC.sum().backward()


def test_a_plan_names_the_limit_and_keeps_to_it(roberta: tuple[Path, int], tmp_path: Path) -> None:
    folder, longest = roberta
    model = {"teacher": str(folder), "student": str(folder)}
    data = {"max_tokens": longest + 1}
    with pytest.raises(UserError) as found:
        plan_run(small_config(tmp_path, model=model, data=data))
    assert f"data.max_tokens: must be at most {longest}, the positions of model.student, but got " \
        f"{longest + 1}" in found.value.errors  # fmt: skip
    plan_run(small_config(tmp_path, model=model, data={"max_tokens": longest}))
