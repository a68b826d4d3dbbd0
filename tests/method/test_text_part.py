"""Models for text and pictures: their language model alone is teacher or student."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import EXAMPLES, batch_of, tokens_of
from small_run import small_config
from transformers import (
    CONFIG_MAPPING,
    AutoModelForImageTextToText,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
)

from knife.core.errors import UserError
from knife.models.check import check_model
from knife.models.load import load_backbone
from knife.models.tokenizer import load_tokenizer, model_config
from knife.plan.model_size import model_size
from knife.plan.plan import plan_run

KINDS = ["gemma3", "idefics3", "llava", "mistral3", "qwen3_5"]
_VISION: dict[str, dict[str, Any]] = {
    "gemma3": {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14},
    "idefics3": {"model_type": "idefics3_vision", "image_size": 28, "patch_size": 14},
    "llava": {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14},
    "mistral3": {"model_type": "pixtral", "image_size": 28, "patch_size": 14},
    "qwen3_5": {"model_type": "qwen3_5", "depth": 1, "num_heads": 2, "out_hidden_size": 32},
}


def save_whole(kind: str, tokenizer: Path, folder: Path) -> Any:
    """Save a tiny random model that reads pictures too; return it."""
    words = load_tokenizer(tokenizer, "model")
    text: dict[str, Any] = {
        "vocab_size": len(words) + 8, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 512, "initializer_range": 0.2, "pad_token_id": 0,
        "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    kinds = {"gemma3": "gemma3_text", "llava": "llama", "mistral3": "mistral", "idefics3": "llama"}
    text["model_type"] = kinds.get(kind, f"{kind}_text")
    if kind == "qwen3_5":
        text |= {"layer_types": ["linear_attention", "full_attention"]}
        text |= {"linear_num_value_heads": 4, "linear_num_key_heads": 2}
        text |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
    vision: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2} | _VISION[kind]
    more = {"mm_tokens_per_image": 4} if kind == "gemma3" else {}
    config = CONFIG_MAPPING[kind](text_config=text, vision_config=vision, **more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config).eval()
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return model


@pytest.fixture(params=KINDS)
def whole(request: pytest.FixtureRequest, tiny_llama: Path, tmp_path: Path) -> tuple[Any, Path]:
    folder = tmp_path / "whole"
    return save_whole(request.param, tiny_llama, folder), folder


def test_its_language_model_is_a_student(whole: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = whole
    found = check_model(folder, "model.student")
    assert found.whole == model.config.model_type
    assert found.config.model_type == model.config.text_config.model_type
    assert found.weights.share == 1
    size = model_size(found.config, folder)
    assert size
    assert size.parameters == found.weights.parameters < model.num_parameters()
    backbone = load_backbone(folder).eval()
    tokens, pad = tokens_of(folder, EXAMPLES)
    batch = batch_of(tokens, pad, rationale=True)
    ids = torch.tensor([tokens[0].input_ids])
    with torch.no_grad():
        scores_BC = backbone(batch).scores_BC
        # The whole model reads a text without pictures in the same way.
        expected = model(input_ids=ids).logits
        torch.testing.assert_close(backbone.model(input_ids=ids).logits, expected)
    plain = tmp_path / "plain"
    backbone.save(plain, backbone.state_dict())
    load_tokenizer(folder, "model").save_pretrained(plain)
    assert check_model(plain, "model.student").whole is None
    with torch.no_grad():
        assert torch.equal(load_backbone(plain).eval()(batch).scores_BC, scores_BC)


def test_both_ways_of_naming_its_weights_are_read(tiny_llama: Path, tmp_path: Path) -> None:
    save_whole("mistral3", tiny_llama, tmp_path)
    expected = load_backbone(tmp_path).state_dict()
    path = tmp_path / "model.safetensors"
    weights, inner, head = load_file(path), "language_model.model.", "language_model.lm_head."
    renamed = {
        name.replace(inner, "model.language_model.").replace(head, "lm_head."): tensor
        for name, tensor in weights.items()
    }
    assert any(name.startswith(inner) for name in weights)
    assert not any(name.startswith((inner, head)) for name in renamed)
    save_file(renamed, path, {"format": "pt"})
    found = load_backbone(tmp_path).state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("stated", [None, "whole", "text"])
def test_a_head_of_its_own_is_kept(stated: str | None, tiny_llama: Path, tmp_path: Path) -> None:
    """Whatever the default of the whole model's class is."""
    save_whole("mistral3", tiny_llama, tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    values.pop("tie_word_embeddings", None)
    values["text_config"].pop("tie_word_embeddings", None)
    if stated:
        (values if stated == "whole" else values["text_config"])["tie_word_embeddings"] = False
    path.write_text(json.dumps(values))
    weights = load_file(tmp_path / "model.safetensors")
    (table,) = (n for n in weights if n.endswith("embed_tokens.weight"))
    weights["language_model.lm_head.weight"] = weights[table] + 1
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    backbone = load_backbone(tmp_path)
    assert backbone.model.config.tie_word_embeddings is False
    assert torch.equal(backbone.model.lm_head.weight, weights[table] + 1)
    if stated:
        return
    del weights["language_model.lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    backbone = load_backbone(tmp_path)
    assert backbone.model.config.tie_word_embeddings is True
    assert torch.equal(backbone.model.lm_head.weight, weights[table])


def test_a_model_that_reads_sounds(tiny_llama: Path, tmp_path: Path) -> None:
    text = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "vocab_size": 300}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}
    sound = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    config = VoxtralConfig(audio_config=sound | {"num_attention_heads": 2}, text_config=text)
    VoxtralForConditionalGeneration(config).save_pretrained(tmp_path)
    load_tokenizer(tiny_llama, "model").save_pretrained(tmp_path)
    assert model_config(tmp_path, "model.student").model_type == "llama"


def test_weights_under_other_names_are_not_taken_for_missing(
    tiny_llama: Path, tmp_path: Path
) -> None:
    save_whole("gemma3", tiny_llama, tmp_path)
    path = tmp_path / "model.safetensors"
    renamed = {f"inside.{name}": tensor for name, tensor in load_file(path).items()}
    save_file(renamed, path, {"format": "pt"})
    with pytest.raises(UserError, match="none of its weights is named as one of a language model"):
        check_model(tmp_path, "model.student")


def test_a_missing_weight_is_named(tiny_llama: Path, tmp_path: Path) -> None:
    save_whole("gemma3", tiny_llama, tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    (name,) = (n for n in weights if "language" in n and n.endswith("layers.1.mlp.up_proj.weight"))
    del weights[name]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"1 is missing \(model.layers.1.mlp.up_proj.weight\)"):
        check_model(tmp_path, "model.student")


def test_a_run_says_that_the_rest_is_left_out(tiny_llama: Path, tmp_path: Path) -> None:
    folder = tmp_path / "whole"
    save_whole("gemma3", tiny_llama, folder)
    both = {"teacher": str(folder), "student": str(folder)}
    plan = plan_run(small_config(tmp_path / "store", model=both))
    assert (
        "model.student: of the 'gemma3' model, its language model ('gemma3_text') is trained alone"
    ) in plan.notes


def test_a_language_model_without_a_class_of_its_own_is_refused(tmp_path: Path) -> None:
    values = {"model_type": "llava", "text_config": {"model_type": "mpnet"}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="'llava' models are not supported"):
        check_model(tmp_path, "model.student")
