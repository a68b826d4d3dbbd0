"""What only decoder-only backbones must do: positions, attention masks, every family."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small import EXAMPLES, batch_of, tokens_of
from tiny_families import decoder_config, save
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from knife.core.errors import UserError
from knife.data.batches import Batch
from knife.data.tokens import Tokens, answer_start
from knife.method.objective import Objective
from knife.models.families import ROTARY, TABLE
from knife.models.load import load_backbone
from knife.models.tokenizer import load_tokenizer


@pytest.fixture(scope="module", params=["rotary", "table"])
def folder(request: pytest.FixtureRequest, tiny_llama: Path, tiny_gpt2: Path) -> Path:
    return tiny_llama if request.param == "rotary" else tiny_gpt2


@pytest.fixture(scope="module", params=[*ROTARY, *TABLE])
def family_folder(
    request: pytest.FixtureRequest, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a tiny random model of each family, all with one tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = load_tokenizer(tiny_llama, "model")
    tokenizer.save_pretrained(folder)
    config = CONFIG_MAPPING[request.param](
        # Qwen2's own tokenizer adds a token.
        vocab_size=len(tokenizer) + 8,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def eager(folder: Path, **settings: Any) -> tuple[Any, list[Any]]:
    """Return a backbone that records its model's inputs and attention weights."""
    backbone: Any = load_backbone(folder, **settings).eval()
    backbone.model.set_attn_implementation("eager")
    kept: list[Any] = []
    attentions = [m for m in backbone.modules() if type(m).__name__.endswith("Attention")]
    for attention in attentions:
        attention.register_forward_hook(lambda _m, _i, output: kept.append(output[1]))
    return backbone, kept


def attention_weights(folder: Path, batch: Batch, *, bottleneck: bool) -> Tensor:
    """Return attention weights of all layers and heads, (B, heads, N, N)."""
    backbone, kept = eager(folder, bottleneck=bottleneck)
    with torch.no_grad():
        backbone(batch)
    assert len(kept) == backbone.depth
    return torch.cat(kept, 1)


@pytest.mark.parametrize("bottleneck", [True, False])
def test_attention_of_the_answer_over_the_rationale_is_zero(
    family_folder: Path, bottleneck: bool
) -> None:
    tokens, pad = tokens_of(family_folder, EXAMPLES)
    batch = batch_of(tokens, pad, rationale=True)
    weights_BANN = attention_weights(family_folder, batch, bottleneck=bottleneck)
    length = batch.ids_BL.shape[1]
    rationale_BL = (batch.mask_BL - batch.input_mask_BL).bool()
    of_answer = weights_BANN[:, :, length:, :length].permute(0, 3, 1, 2)
    of_input = weights_BANN[:, :, :length, :length].permute(0, 2, 3, 1)
    if bottleneck:
        assert (of_answer[rationale_BL] == 0).all()
    else:
        assert (of_answer[rationale_BL] > 0).all()
    # The answer sees the whole task input, which sees the rationale; no token sees padding.
    assert (of_answer[batch.input_mask_BL.bool()] > 0).all()
    assert (of_answer[batch.mask_BL == 0] == 0).all()
    for row in range(len(tokens)):
        rationale, own = rationale_BL[row], batch.input_mask_BL[row].bool()
        assert (of_input[row][own][:, rationale] > 0).all()
        assert (of_input[row][rationale][:, own] == 0).all()


def test_no_choice_sees_another(folder: Path) -> None:
    tokens, pad = tokens_of(folder, EXAMPLES)
    batch = batch_of(tokens, pad, rationale=False)
    _, C, T = batch.choice_ids_BCT.shape
    weights = attention_weights(folder, batch, bottleneck=True)[:, :, -C * T :, -C * T :]
    place = torch.arange(C * T)
    apart = place[:, None] // T != place // T
    assert (weights[:, :, apart] == 0).all()
    behind = ~apart & (place[:, None] >= place)
    assert (weights[:, :, behind] > 0).all()
    assert (weights[:, :, ~apart & ~behind] == 0).all()


def places_of(folder: Path, batch: Batch) -> Tensor:
    """Return the position ids that the model is given."""
    backbone: Any = load_backbone(folder).eval()
    given: list[Tensor] = []
    backbone.model.base_model.register_forward_pre_hook(
        lambda _m, _i, named: given.append(named["position_ids"]), with_kwargs=True
    )
    backbone(batch)
    return given[0]


def test_positions_of_task_input_and_answer_are_the_students(folder: Path) -> None:
    tokens, pad = tokens_of(folder, EXAMPLES)
    teacher, student = (batch_of(tokens, pad, rationale=r) for r in (True, False))
    with_BN, without_BN = places_of(folder, teacher), places_of(folder, student)
    answers = with_BN.shape[1] - teacher.ids_BL.shape[1]
    assert torch.equal(with_BN[:, -answers:], without_BN[:, -answers:])
    backbone: Any = load_backbone(folder)
    rows = backbone.model.config.max_position_embeddings
    for row, example in enumerate(tokens):
        own, whole = len(example.input_ids), int(teacher.mask_BL[row].sum())
        assert with_BN[row, :own].tolist() == without_BN[row, :own].tolist() == list(range(own))
        # The rationale ends immediately before the task input, or in the last row of the table.
        end = rows if "gpt2" in folder.name else 0
        assert with_BN[row, own:whole].tolist() == list(range(end - (whole - own), end))
        assert int(without_BN[row, -answers:].min()) == own


def test_without_the_bottleneck_rotary_models_read_plain_text(tiny_llama: Path) -> None:
    """`[R ; I ; O]` from position 0 on gives the same scores by transformers' own loss."""
    tokens, pad = tokens_of(tiny_llama, EXAMPLES)
    backbone: Any = load_backbone(tiny_llama, bottleneck=False).eval()
    start = answer_start(load_tokenizer(tiny_llama, "model"))
    with torch.no_grad():
        scores_BC = backbone(batch_of(tokens, pad, rationale=True)).scores_BC
        for row, example in enumerate(tokens):
            for number, choice in enumerate(example.choice_ids):
                before = example.rationale_ids + example.input_ids + start
                labels = torch.tensor([[-100] * len(before) + choice])
                plain = backbone.model(torch.tensor([before + choice]), labels=labels)
                assert float(scores_BC[row, number]) == pytest.approx(-float(plain.loss), abs=2e-5)


def test_a_student_of_any_family_scores_as_transformers_does(family_folder: Path) -> None:
    tokens, pad = tokens_of(family_folder, EXAMPLES[:3])
    backbone: Any = load_backbone(family_folder).eval()
    start = answer_start(load_tokenizer(family_folder, "model"))
    with torch.no_grad():
        scores_BC = backbone(batch_of(tokens, pad, rationale=False)).scores_BC
        for row, example in enumerate(tokens):
            for number, choice in enumerate(example.choice_ids):
                before = example.input_ids + start
                labels = torch.tensor([[-100] * len(before) + choice])
                plain = backbone.model(torch.tensor([before + choice]), labels=labels)
                assert float(scores_BC[row, number]) == pytest.approx(-float(plain.loss), abs=2e-5)


WINDOWS: dict[str, dict[str, Any]] = {
    "cohere2": {"num_hidden_layers": 4},
    "exaone4": {"num_hidden_layers": 4},
    "gemma2": {},
    "gemma3_text": {"num_hidden_layers": 6},
    "gpt_oss": {},
    "ministral": {"layer_types": ["sliding_attention", "full_attention"]},
    "mistral": {},
    "olmo3": {"num_hidden_layers": 4},
    "phi3": {},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 1},
    "starcoder2": {},
}


@torch.no_grad()
@pytest.mark.parametrize("kind", WINDOWS)
def test_windows_are_those_of_the_model(kind: str, tiny_llama: Path, tmp_path: Path) -> None:
    """Texts are several times as long; of a teacher without the bottleneck, and in writing."""
    tokenizer = load_tokenizer(tiny_llama, "model")
    config = decoder_config(kind, len(tokenizer) + 8, **WINDOWS[kind], sliding_window=7)
    save(config, tokenizer, tmp_path)
    tokens, pad = tokens_of(tmp_path, [*EXAMPLES[:3], EXAMPLES[-1]])
    assert min(len(example.input_ids) for example in tokens) > 2 * 7
    backbone: Any = load_backbone(tmp_path, bottleneck=False).eval()
    assert type(backbone).__name__ == "DecoderOnly"
    start = answer_start(tokenizer)
    for rationale in (True, False):
        scores_BC = backbone(batch_of(tokens, pad, rationale=rationale)).scores_BC
        for row, example in enumerate(tokens):
            for number, choice in enumerate(example.choice_ids):
                before = (example.rationale_ids if rationale else []) + example.input_ids + start
                labels = torch.tensor([[-100] * len(before) + choice])
                plain = backbone.model(torch.tensor([before + choice]), labels=labels)
                assert float(scores_BC[row, number]) == pytest.approx(-float(plain.loss), abs=2e-5)
    written = backbone.generate(batch_of(tokens, pad, rationale=False), 12)
    for example, ids in zip(tokens, written, strict=True):
        text = example.input_ids + start
        for token in ids:
            assert token == int(backbone.model(torch.tensor([text])).logits[0, -1].argmax())
            text.append(token)


def scores_of(backbone: Any, tokens: Sequence[Tokens], pad: int) -> Tensor:
    with torch.no_grad():
        scores: Tensor = backbone(batch_of(tokens, pad, rationale=True)).scores_BC
    return scores


def test_attention_implementations_give_the_same_scores(family_folder: Path) -> None:
    tokens, pad = tokens_of(family_folder, EXAMPLES)
    backbone: Any = load_backbone(family_folder).eval()
    # Two have no other than eager attention.
    eager = backbone.model.config.model_type in ("gemma2", "gpt_oss")
    assert backbone.model.config._attn_implementation == ("eager" if eager else "sdpa")
    fused = scores_of(backbone, tokens, pad)
    backbone.model.set_attn_implementation("eager")
    torch.testing.assert_close(scores_of(backbone, tokens, pad), fused, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="flex attention is compiled by g++")
def test_flex_attention_gives_the_same_scores(tiny_llama: Path) -> None:
    """Only the forward pass: there is no backward pass on a CPU."""
    tokens, pad = tokens_of(tiny_llama, EXAMPLES)
    backbone: Any = load_backbone(tiny_llama).eval()
    fused = scores_of(backbone, tokens, pad)
    backbone.model.set_attn_implementation("flex_attention")
    torch.testing.assert_close(scores_of(backbone, tokens, pad), fused, atol=1e-5, rtol=1e-5)


def test_gradient_reaches_every_weight_of_the_model(family_folder: Path) -> None:
    tokens, pad = tokens_of(family_folder, EXAMPLES)
    objective = Objective(load_backbone(family_folder)).train()
    objective(batch_of(tokens, pad, rationale=True)).loss.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        assert parameter.grad.isfinite().all(), name


def test_choices_are_what_a_tokenizer_makes_behind_the_answers_start(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, "model")
    tokens, _ = tokens_of(folder, EXAMPLES)
    start = answer_start(tokenizer)
    assert tokenizer.decode(start) == " answer:"
    for example, own in zip(EXAMPLES, tokens, strict=True):
        for choice, ids in zip(example.choices, own.choice_ids, strict=True):
            whole = tokenizer(f" answer: {choice}", add_special_tokens=False)["input_ids"]
            assert start + ids == [*whole, tokenizer.eos_token_id]
        if example.rationale:
            # No opening or closing token; on a separate line.
            assert tokenizer.decode(own.rationale_ids) == f"explanation: {example.rationale}\n"


def test_a_tokenizer_that_does_not_go_with_the_family_is_refused(
    tiny_llama: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    backbone: Any = load_backbone(tiny_llama)
    backbone.model.save_pretrained(tmp_path)
    load_tokenizer(tiny_bert, "model").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"ends every text, which a decoder-only model must not"):
        load_tokenizer(tmp_path, "model.student")
    load_tokenizer(tiny_llama, "model").save_pretrained(tmp_path)
    load_tokenizer(tmp_path, "model.student")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"has no eos_token, which ends an answer"):
        load_tokenizer(tmp_path, "model.student")
