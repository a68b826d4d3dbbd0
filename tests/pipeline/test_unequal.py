"""Teacher and student of unequal sizes and vocabularies: what is refused, and a run that works."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pair import run_stages
from safetensors.torch import load_file, save_file
from small import EXAMPLES, save_tiny_bert
from small_run import small_config

from knife.config.run import RunConfig
from knife.pipeline.run import publish_data
from knife.plan.plan import plan_run
from knife.store.store import Store
from knife.train.context import PlainContext


@pytest.fixture
def wide_bert(tmp_path: Path) -> Path:
    save_tiny_bert(tmp_path / "wide", EXAMPLES, width=48)
    return tmp_path / "wide"


def unequal(store: Path, student: Path, teacher: Path, **align: Any) -> RunConfig:
    model = {"teacher": str(teacher), "student": str(student)}
    return small_config(store, model=model, align=align)


def test_a_wider_teacher_with_a_larger_vocabulary_and_the_same_tokens_teaches(
    tmp_path: Path, tiny_bert: Path, wide_bert: Path
) -> None:
    """Embeddings are often padded to a round number of rows that no text uses."""
    weights = load_file(wide_bert / "model.safetensors")
    (name,) = [name for name in weights if name.endswith("word_embeddings.weight")]
    weights[name] = torch.cat([weights[name], weights[name][:7]])
    save_file(weights, wide_bert / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((wide_bert / "config.json").read_text())
    settings["vocab_size"] += 7
    (wide_bert / "config.json").write_text(json.dumps(settings))
    chosen = {"layers": "uniform", "distance": "layer_norm_mse", "tokens": "content"}
    config = unequal(tmp_path / "store", tiny_bert, wide_bert, input=chosen)
    plan, store = plan_run(config), Store(config.store)
    publish_data(store, plan)
    with PlainContext() as context:
        run_stages(plan.stages, store.root, config.scale, context)
    student = plan.members[0].student
    assert student.layers == ((1, 1), (2, 2))
    folder = store.path("student", student.key)
    saved = load_file(folder / "model" / "model.safetensors")
    assert not [name for name in saved if "projection" in name]
    lines = (folder / "journal.jsonl").read_text().splitlines()
    metrics = [json.loads(line).get("metrics", {}) for line in lines]
    distances = [found["input_alignment"] for found in metrics if "input_alignment" in found]
    assert distances
    assert all(0 < distance < 4 for distance in distances)


def test_keys_of_what_is_aligned_hang_on_the_tokens_chosen(tmp_path: Path) -> None:
    def key(**settings: Any) -> tuple[str, str]:
        student = plan_run(small_config(tmp_path, align={"input": settings})).members[0].student
        return student.key, student.states[3]

    plain = key()
    assert key(tokens="all") == plain
    found = [key(tokens=tokens) for tokens in ("content", "mean", "words")]
    assert len({plain, *found}) == 4
    # The stored states cover all tokens, so every `align.input.tokens` shares them.
    assert {states for _, states in (plain, *found)} == {plain[1]}
