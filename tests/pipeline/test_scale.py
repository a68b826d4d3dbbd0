"""Scale keys that a model or a machine does not support are refused before a start."""

from pathlib import Path
from typing import Any

import pytest
from small_run import small_config
from tiny_families import save_decoder

from knife.core.errors import UserError
from knife.plan.plan import plan_run


def errors(store: Path, model: Path | None = None, **scale: Any) -> list[str]:
    changes: dict[str, Any] = {"scale": scale, "methods": ["finetune"]}
    if model:
        changes["model"] = {"teacher": str(model), "student": str(model)}
    try:
        plan_run(small_config(store, **changes))
    except UserError as error:
        return error.errors
    return []


def test_attention_that_a_model_lacks(tmp_path: Path, tiny_llama: Path, tiny_bert: Path) -> None:
    for attention in (None, "eager", "sdpa"):
        assert errors(tmp_path, attention=attention) == []
    assert errors(tmp_path, attention="flash_attention_2") == [
        "scale.attention: flash_attention_2 is not supported by T5ForConditionalGeneration "
        "(model.student); use sdpa, eager or null"
    ]
    assert errors(tmp_path, tiny_llama, attention="flash_attention_2") == [
        "scale.attention: flash_attention_2 does not support the mask that keeps choices apart in "
        "model.student (LlamaForCausalLM); use sdpa, eager or null"
    ]
    # The model supports it, but the launcher 'ray' has no GPU by default.
    bert = errors(tmp_path, tiny_bert, attention="flash_attention_2", launcher="ray")
    assert bert == [
        "scale.attention: flash_attention_2 computes only in bf16, but scale.precision is fp32",
        "scale.attention: flash_attention_2 needs a GPU, but workers have none; set "
        "scale.gpus_per_worker=1",
    ]
    assert errors(tmp_path, attention="flex_attention") == [
        "scale.attention: flex_attention is not supported by T5ForConditionalGeneration "
        "(model.student); use sdpa, eager or null"
    ]
    flex: dict[str, Any] = {"attention": "flex_attention", "launcher": "ray"}
    assert errors(tmp_path, tiny_llama, **flex) == [
        "scale.attention: flex_attention trains only on a GPU; set scale.gpus_per_worker=1, or "
        "use sdpa"
    ]
    with pytest.raises(UserError, match=r"scale\.attention"):
        small_config(tmp_path, scale={"attention": "flash"})


def test_what_two_readings_do_not_go_with(tmp_path: Path, tiny_llama: Path) -> None:
    save_decoder("lfm2", tiny_llama, tmp_path / "lfm2")
    store, model = tmp_path / "store", tmp_path / "lfm2"
    assert errors(store, model, zero_stage=2, attention="eager") == []
    found = errors(store, model, zero_stage=3, gradient_checkpointing=True, compile=True)
    said = "does not go with model.student, a 'lfm2' model, which reads a rationale and an "
    for name in ("zero_stage: 3", "gradient_checkpointing: true", "compile: true"):
        assert any(each.startswith(f"scale.{name} {said}") for each in found), found
    assert len(found) == 3


def test_compilation_for_a_cpu_needs_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert errors(tmp_path, gradient_checkpointing=True) == []
    # A path without programs; the launcher 'ray' computes on a CPU by default.
    monkeypatch.setenv("PATH", str(tmp_path))
    (error,) = errors(tmp_path, compile=True, launcher="ray")
    assert error.startswith("scale.compile: needs a C++ compiler to compile for a CPU")
