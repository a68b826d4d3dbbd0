"""A kind of model that does not compute what is taken for granted is refused before a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import small_config
from tiny_families import decoder_config, encoder_config, save
from torch import Tensor
from transformers import CONFIG_MAPPING

from knife.core.errors import UserError
from knife.models import decoder_only
from knife.models import self_test as module
from knife.models.base import Backbone, choice_scores
from knife.models.decoder_only import DecoderOnly
from knife.models.self_test import self_test
from knife.models.shrunk import shrunk_model
from knife.models.tokenizer import load_tokenizer
from knife.plan import sources
from knife.plan.plan import plan_run

Tiny = Callable[[str], tuple[Any, Any]]


@pytest.fixture
def tiny(tiny_bert: Path, tiny_llama: Path) -> Tiny:
    """Return the config of a tiny model of some kind, and a tokenizer for it."""

    def make(kind: str) -> tuple[Any, Any]:
        decoder = kind in ("apertus", "cohere", "gemma3_text", "llama", "mamba")
        tokenizer = load_tokenizer(tiny_llama if decoder else tiny_bert, "model")
        config = decoder_config if decoder else encoder_config
        return config(kind, len(tokenizer) + 8), tokenizer

    return make


@pytest.mark.parametrize(
    "kind",
    ["bert", "roberta", "modernbert", "deberta-v2", "llama", "cohere", "gemma3_text", "mamba"],
)
def test_what_is_right_passes(tiny: Tiny, kind: str) -> None:
    assert self_test(*tiny(kind), 256) == []


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        ("big_bird", "what it reads depends on padding"),
        ("convbert", "what it reads depends on padding"),
        ("fnet", "what it reads depends on padding"),
        ("mobilebert", "what it reads depends on padding"),
        ("nystromformer", "what it reads depends on padding"),
        ("yoso", "what it reads depends on padding"),
        ("mra", "a rationale does not change how it reads the task input"),
        ("funnel", "no small model of its kind can be tried"),
    ],
)
def test_what_would_be_wrong_without_a_word_fails(tiny: Tiny, kind: str, failure: str) -> None:
    found = self_test(*tiny(kind), 256)
    assert any(each.startswith(failure) for each in found), found


def test_an_answer_that_reads_the_rationale_fails(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_bottleneck(folder: Path) -> Backbone:
        return DecoderOnly(folder, bottleneck=False)

    monkeypatch.setattr(module, "load_backbone", without_bottleneck)
    (failure,) = self_test(*tiny("llama"), 256)
    assert failure.startswith("the answer reads the rationale itself, and not the task input alone")


def test_scores_that_are_not_the_models_own_fail(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a model scales its logits, and the head's are taken for them."""

    real = choice_scores

    def scaled(logits: Tensor, batch: Any) -> Tensor:
        return real(2 * logits, batch)

    monkeypatch.setattr(decoder_only, "choice_scores", scaled)
    found = self_test(*tiny("cohere"), 256)
    assert any(each.startswith("scores are not those of the model alone") for each in found)


def test_what_is_lost_in_saving_fails(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apertus has numbers that are saved but not trained."""
    whole = Backbone.save

    def parameters_alone(self: Backbone, folder: Path, state: dict[str, Tensor]) -> None:
        own = dict(self.named_parameters())
        whole(self, folder, {name: state[name] for name in own})

    assert self_test(*tiny("apertus"), 256) == []
    monkeypatch.setattr(Backbone, "save", parameters_alone)
    (failure,) = self_test(*tiny("apertus"), 256)
    assert failure.startswith("a small model of its kind/again: its weights are not those of")
    assert "4 are missing" in failure


def test_a_model_without_finite_outputs_fails(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    real = DecoderOnly.forward

    def forward(self: DecoderOnly, *arguments: Any) -> Any:
        output = real(self, *arguments)
        output.scores_BC[0, 0] = torch.nan
        return output

    monkeypatch.setattr(DecoderOnly, "forward", forward)
    assert self_test(*tiny("llama"), 256) == ["its outputs are NaN or infinite"]


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the kinds that plans try, as they try them."""
    found: list[str] = []

    def noted(config: Any, *arguments: Any) -> list[str]:
        found.append(config.model_type)
        return self_test(config, *arguments)

    monkeypatch.setattr(sources, "self_test", noted)
    return found


def test_a_plan_refuses_what_fails(tiny: Tiny, tmp_path: Path, tested: list[str]) -> None:
    save(*tiny("fnet"), tmp_path / "fnet")
    name = str(tmp_path / "fnet")
    with pytest.raises(UserError) as caught:
        plan_run(small_config(tmp_path / "store", model={"teacher": name, "student": name}))
    student, teacher = caught.value.errors
    assert student.startswith(
        "model.student: 'fnet' models cannot be used: what it reads depends on padding and on "
        "other texts of a batch"
    )
    assert teacher == student.replace("model.student", "model.teacher")
    assert not (tmp_path / "store" / "self-tests").exists()
    assert tested == ["fnet", "fnet"]


def test_what_has_passed_is_not_tried_again(
    tmp_path: Path, tiny_llama: Path, tested: list[str]
) -> None:
    model = {"teacher": str(tiny_llama), "student": str(tiny_llama)}
    for _ in range(2):
        plan_run(small_config(tmp_path, model=model))
    assert tested == ["llama"]
    # It is tried on texts of its own, whatever the limit; longer ones may be read in another way.
    plan_run(small_config(tmp_path, model=model, data={"max_tokens": 127}))
    assert tested == ["llama", "llama"]
    plan_run(small_config(tmp_path, model=model, data={"max_tokens": 300}))
    assert tested == ["llama", "llama", "llama"]


LARGE: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32},
    "qwen3_moe": {"hidden_size": 2048, "num_hidden_layers": 48, "num_experts": 128},
    "gemma3_text": {"hidden_size": 1152, "num_hidden_layers": 26, "num_attention_heads": 4},
    "gemma3n_text": {"vocab_size_per_layer_input": 500},
    "granitemoehybrid": {"num_hidden_layers": 40, "layer_types": ["mamba", "attention"] * 20},
    "mamba2": {},
    "bert": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    "t5": {"d_model": 1024, "num_layers": 24, "num_heads": 16},
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_large_model_is_tried_as_a_small_one(kind: str) -> None:
    """With all types of its layers."""
    large = CONFIG_MAPPING[kind](**LARGE[kind], vocab_size=500)
    model = shrunk_model(large)
    assert sum(parameter.numel() for parameter in model.parameters()) < 10_000_000
    assert model.config.hidden_size <= 512
    if types := getattr(large, "layer_types", None):
        assert set(model.config.layer_types) == set(types)
        assert len(model.config.layer_types) == model.config.num_hidden_layers <= 10
