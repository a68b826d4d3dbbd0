"""Every weight of a model comes from its files, or else the model is refused before a start."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import EXAMPLES, batch_of, tokens_of
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
)

from knife.core.errors import UserError
from knife.models.check import check_model
from knife.models.load import load_backbone
from knife.models.source import EMBEDDED
from knife.models.weights import head_size

State = dict[str, Tensor]


@pytest.fixture
def model(model_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of a tiny model of each family."""
    return shutil.copytree(model_folder, tmp_path / "copy")


def change(folder: Path, changed: Callable[[State], State]) -> None:
    """Save other weights into a model folder."""
    path = folder / "model.safetensors"
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    save_file(changed(state), path, metadata={"format": "pt"})


def configure(folder: Path, **values: Any) -> None:
    """Change values of a folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def error(folder: Path) -> str:
    """Return the only error of a model folder, which also prevents loading it."""
    with pytest.raises(UserError) as found:
        check_model(folder, "model.student")
    (line,) = found.value.errors
    assert line.startswith("model.student: ")
    with pytest.raises(UserError):
        load_backbone(folder)
    return line


def as_type(state: State, kind: torch.dtype, _: State) -> State:
    """Convert weights to another type."""
    return {name: tensor.to(kind) for name, tensor in state.items()}


def first(state: State) -> str:
    """Return the name of a weight matrix that is not an embedding table."""
    return next(n for n, t in sorted(state.items()) if t.dim() == 2 and ".0." in n)


def test_all_weights_of_tiny_models_are_their_files(model: Path) -> None:
    weights = check_model(model, "model.student").weights
    backbone: Any = load_backbone(model)
    assert weights.parameters == sum(p.numel() for p in backbone.parameters())
    new = sum(weights.new.values())
    assert weights.from_files == weights.parameters - new
    assert weights.share == weights.from_files / weights.parameters
    assert set(weights.new) <= {"the answer head"}


def test_an_answer_head_that_begins_at_random_is_named(tiny_bert: Path) -> None:
    weights = check_model(tiny_bert, "model.student").weights
    assert weights.new == {"the answer head": head_size(32)}
    backbone: Any = load_backbone(tiny_bert)
    own = [*backbone.head.parameters(), *backbone.score.parameters()]
    assert sum(p.numel() for p in own) == head_size(32)
    assert weights.words().endswith("; new: the answer head (3,137)")
    assert check_model(EMBEDDED["tiny-bert"], "model.student").weights.share == 1.0


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "model.x.", "m."])
def test_weights_that_a_wrapper_named_are_refused(model: Path, prefix: str) -> None:
    change(model, lambda state: {f"{prefix}{name}": t for name, t in state.items()})
    said = error(model)
    assert "are missing" in said
    assert f"({prefix}" in said
    if prefix in ("module.", "_orig_mod."):
        assert f"the name of each begins with {prefix!r}: save" in said
    if prefix.startswith("base"):
        assert "merge_and_unload" in said


def test_a_missing_weight_is_named(model: Path) -> None:
    names: list[str] = []

    def without(state: State) -> State:
        names.append(first(state))
        return {name: t for name, t in state.items() if name != names[0]}

    change(model, without)
    said = error(model)
    assert "1 is missing" in said
    assert names[0].rpartition(".0.")[2] in said


def test_a_weight_that_has_no_place_is_named(model: Path) -> None:
    change(model, lambda state: state | {"encoder.extra.weight": torch.ones(2)})
    assert "1 is unexpected (" in error(model)


def test_a_weight_of_another_shape_is_named(model: Path) -> None:
    change(model, lambda state: state | {first(state): state[first(state)][:-1].contiguous()})
    said = error(model)
    assert "1 is of another shape (" in said
    assert "31, " in said or "63, " in said or "15, " in said or "127, " in said


@pytest.mark.parametrize("more", [-1, 1])
def test_a_config_of_other_layers_is_refused(model: Path, more: int) -> None:
    values = json.loads((model / "config.json").read_text())
    names = ("num_layers", "n_layer", "num_hidden_layers")
    name = next(name for name in names if name in values)
    configure(model, **{name: values[name] + more})
    said = error(model)
    assert ("unexpected" if more < 0 else "are missing") in said
    assert "config.json is of a model of another size" in said


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(model: Path, number: float) -> None:
    def spoiled(state: State) -> State:
        state[first(state)][0, 0] = number
        return state

    change(model, spoiled)
    assert "1 of its tensors have NaN or infinity" in error(model)


def test_weights_of_every_floating_type_are_read_as_they_are(model: Path) -> None:
    """config.json may name a type that weights would be rounded to."""
    exact = {name: t.clone() for name, t in load_file(model / "model.safetensors").items()}
    before = load_backbone(model).state_dict()
    configure(model, dtype="bfloat16")
    for name, tensor in load_backbone(model).state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name]) or "head" in name or "score" in name
    for kind in (torch.float64, torch.bfloat16, torch.float16):
        change(model, partial(as_type, exact, kind))
        weights = check_model(model, "model.student").weights
        assert set(weights.new) <= {"the answer head"}
        assert load_backbone(model).state_dict().keys() == before.keys()


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn, torch.uint8])
def test_quantised_weights_are_refused(model: Path, kind: torch.dtype) -> None:
    change(model, lambda s: {n: t.to(kind) if t.dim() == 2 else t for n, t in s.items()})
    with pytest.raises(UserError, match="its weights are quantised"):
        check_model(model, "model.student")


def test_a_quantisation_in_the_config_is_refused(model: Path) -> None:
    configure(model, quantization_config={"quant_method": "fp8", "bits": 8})
    with pytest.raises(UserError, match=r"its weights are quantised \(quantization_config in"):
        check_model(model, "model.student")


SMALL = {
    "vocab_size": 600,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "pad_token_id": 0,
}
HEADS = (
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForQuestionAnswering,
)


@pytest.mark.parametrize(
    "kind",
    [
        BertConfig,
        RobertaConfig,
        ElectraConfig,
        MPNetConfig,
        DistilBertConfig,
        DebertaV2Config,
        ModernBertConfig,
    ],
)
@pytest.mark.parametrize("auto", HEADS)
def test_encoders_load_without_the_heads_that_they_were_trained_with(
    kind: Any, auto: Any, tiny_bert: Path, tmp_path: Path
) -> None:
    """As on the hub: with pretraining heads, without a pooler, with position tables as weights."""
    config = kind(**SMALL)
    if type(config) not in auto._model_mapping:
        config = BertConfig(**SMALL)
    auto.from_config(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path)
    change(tmp_path, lambda state: state | {"embeddings.position_ids": torch.arange(9)})
    weights = check_model(tmp_path, "model.student").weights
    assert set(weights.new) <= {"the answer head", "a pooler that is not used"}
    assert sum(p.numel() for p in load_backbone(tmp_path).parameters()) == weights.parameters


def test_decoders_load_as_the_hub_has_them(
    tiny_llama: Path, tiny_gpt2: Path, tmp_path: Path
) -> None:
    """Without a prefix and with tables of old versions; but an untied head is required."""
    folder = tmp_path / "gpt2"
    gpt2 = GPT2Model.from_pretrained(tiny_gpt2)
    AutoTokenizer.from_pretrained(tiny_gpt2).save_pretrained(folder)
    gpt2.save_pretrained(folder)
    masks = {f"h.{n}.attn.bias": torch.ones(1, 1, 4, 4) for n in (0, 1)}
    masks |= {f"h.{n}.attn.masked_bias": torch.tensor(-1e4) for n in (0, 1)}
    change(folder, lambda state: state | masks)
    assert check_model(folder, "model.student").weights.share == 1.0
    state = load_backbone(folder).state_dict()
    assert all(torch.equal(state[n], t) for n, t in load_backbone(tiny_gpt2).state_dict().items())

    folder = shutil.copytree(tiny_llama, tmp_path / "llama")
    change(folder, lambda s: s | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert check_model(folder, "model.student").weights.share == 1.0
    LlamaModel.from_pretrained(tiny_llama).save_pretrained(folder)
    assert "1 is missing (lm_head.weight)" in error(folder)


def test_t5_loads_as_the_hub_has_it(tmp_path: Path) -> None:
    folder = shutil.copytree(EMBEDDED["tiny-t5"], tmp_path / "t5")
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    change(folder, lambda s: s | {unused: torch.ones(32, 4)})
    change(folder, lambda s: s | {"lm_head.weight": s["shared.weight"] * 1})
    assert check_model(folder, "model.student").weights.share == 1.0
    # Only an encoder, like embedding models.
    change(folder, lambda s: {n: t for n, t in s.items() if not n.startswith("decoder.")})
    assert "are missing (decoder." in error(folder)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_that_the_file_holds_several_times_count_once(
    tied: bool, tmp_path: Path
) -> None:
    """As in FLAN-T5: the embeddings under three names, and a tied or untied head."""
    folder = shutil.copytree(EMBEDDED["tiny-t5"], tmp_path / "t5")
    configure(folder, tie_word_embeddings=tied)
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    change(folder, lambda s: s | {name: s["shared.weight"].clone() for name in names})
    change(folder, lambda s: s | {"lm_head.weight": s["shared.weight"] + (0 if tied else 1)})
    weights = check_model(folder, "model.student").weights
    assert weights.parameters == sum(p.numel() for p in load_backbone(folder).parameters())
    assert weights.share == 1.0


def test_a_head_that_is_not_tied_has_to_be_in_the_file(tmp_path: Path) -> None:
    """T5 1.1 has a separate head; without it, transformers would use the embeddings."""
    folder = shutil.copytree(EMBEDDED["tiny-t5"], tmp_path / "t5")
    configure(folder, tie_word_embeddings=False)
    change(folder, lambda state: state | {"lm_head.weight": state["shared.weight"] * 2})
    assert check_model(folder, "model.student").weights.share == 1.0
    backbone: Any = load_backbone(folder)
    assert torch.equal(backbone.model.lm_head.weight, backbone.model.shared.weight * 2)
    change(folder, lambda state: {n: t for n, t in state.items() if n != "lm_head.weight"})
    with pytest.raises(UserError, match=r"is missing \(lm_head.weight\)"):
        check_model(folder, "model.student")


@pytest.mark.parametrize("config", [LlamaConfig, GPT2Config])
def test_tied_decoders_need_no_head(config: Any, tiny_llama: Path, tmp_path: Path) -> None:
    made = config(**SMALL | {"pad_token_id": None}, tie_word_embeddings=True)
    AutoModelForCausalLM.from_config(made).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert check_model(tmp_path, "model.student").weights.share == 1.0


def test_an_answer_head_is_whole_or_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "student"
    backbone: Any = load_backbone(tiny_bert, seed=4).eval()
    backbone.save(folder, {n: p.detach() for n, p in backbone.named_parameters()})
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    tokens, pad = tokens_of(tiny_bert, EXAMPLES)
    batch = batch_of(tokens, pad, rationale=False)
    again: Any = load_backbone(folder).eval()
    with torch.no_grad():
        assert torch.equal(again(batch).scores_BC, backbone(batch).scores_BC)
    head = folder / "answer_head.safetensors"
    whole = load_file(head)
    for wrong in (
        {n: t for n, t in whole.items() if n != "score.bias"},
        whole | {"extra": torch.ones(1)},
        whole | {"score.weight": torch.ones(1, 31)},
    ):
        save_file(wrong, head)
        assert "is not the answer head of this encoder" in error(folder)
    save_file(whole | {"score.bias": torch.tensor([torch.nan])}, head)
    with pytest.raises(UserError, match="NaN or infinity"):
        load_backbone(folder)
    # An encoder that was trained here must have it; for others it is new.
    head.unlink()
    assert load_backbone(folder)
    (folder / "knife.json").write_text("{}")
    assert "is a trained encoder without its answer_head.safetensors" in error(folder)


def test_dropout_is_off_in_a_model_that_was_loaded(model: Path) -> None:
    backbone: Any = load_backbone(model).eval()
    assert not any(module.training for module in backbone.modules())
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
