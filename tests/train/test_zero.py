"""Two workers with every ZeRO stage make the same run as one process."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pair import Pair, in_pair, make
from safetensors.torch import load_file
from small import EXAMPLES, save_tiny_bert, save_tiny_llama
from small_run import small_config
from torch import Tensor

from knife.config.run import RunConfig
from knife.plan.plan import plan_run
from knife.plan.stage import Stage
from knife.train import loop
from knife.train.context import PlainContext

# The engine's module must be imported first, with its own settings.
import deepspeed  # isort: skip

# 50 examples in batches of 20: the last batch of an epoch is half full.
CHANGES: dict[str, Any] = {
    "methods": ["knife"],
    "data": {"world": {"train": 50, "dev": 10, "test": 10}},
    # Adam amplifies the last digits of a small gradient: small steps limit that.
    "teacher": {"epochs": 1, "learning_rate": 1e-4},
    "student": {"epochs": 1, "learning_rate": 1e-4},
}
SCALES: dict[str, dict[str, Any]] = {
    "zero-0": {"zero_stage": 0},
    "zero-1": {"zero_stage": 1},
    "zero-2": {"zero_stage": 2},
    "zero-3": {"zero_stage": 3},
    "bert": {"zero_stage": 3},
    "llama": {"zero_stage": 3},
    "lora": {"zero_stage": 2},
    "bf16": {"zero_stage": 2, "precision": "bf16"},
    # Students that generate: all workers continue until the last text is done.
    "writes": {"zero_stage": 3},
}
# Separate runs, which one process makes as well.
OTHERS = ("bert", "llama", "lora", "writes")


def config(folder: Path, name: str) -> RunConfig:
    """Return the run of a name; its store is a folder of that name."""
    changes = dict(CHANGES)
    for family in ("bert", "llama"):
        if name.endswith(family):
            model = str(folder / f"{family}-model")
            changes["model"] = {"teacher": model, "student": model}
    if name.endswith("lora"):
        for part in ("teacher", "student"):
            changes[part] = changes[part] | {"lora": {"rank": 4}}
    if name.endswith("writes"):
        changes["methods"] = ["step_by_step", "explain_then_answer"]
    return small_config(folder / name, scale=SCALES.get(name, {}), **changes)


def work(context: Pair, folder: Path) -> None:
    """Run one of the two workers: all scales in sequence, with a journal row per step."""
    loop.LOG_STEPS = 1
    engines: list[list[Any]] = []
    initialize = deepspeed.initialize

    def noting(**settings: Any) -> Any:
        engine, *others = initialize(**settings)
        kind = f"{type(engine).__module__}.{type(engine).__name__}"
        engines.append([kind, engine.zero_optimization_stage(), engine.bfloat16_enabled()])
        return engine, *others

    deepspeed.initialize = noting
    for name in SCALES:
        engines.clear()
        make(config(folder, name), context)
        (folder / f"{name}-{context.rank}.json").write_text(json.dumps(engines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the stores of all runs: those of two workers by scale, and those of one process."""
    folder = tmp_path_factory.mktemp("zero")
    save_tiny_bert(folder / "bert-model", EXAMPLES, dropout=0.0)
    save_tiny_llama(folder / "llama-model", EXAMPLES)
    wait = in_pair(work, folder)
    with PlainContext() as context, pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_STEPS", 1)
        for name in ("alone", *(f"alone-{name}" for name in OTHERS)):
            make(config(folder, name), context)
    wait()
    return folder


def trained(folder: Path, name: str) -> dict[str, Path]:
    """Return the trained models' artifacts by method."""
    plan = plan_run(config(folder, name))
    stages: dict[str, Stage] = {m.method: m.student for m in plan.members}
    stages |= {"teacher": plan.teacher} if plan.teacher else {}
    return {method: folder / name / s.kind / s.key for method, s in stages.items()}


def metrics(artifact: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (artifact / "journal.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r["metrics"].items() if "per_second" not in k} for r in rows]


def weights(artifact: Path) -> dict[str, Tensor]:
    paths = sorted((artifact / "model").glob("*.safetensors"))
    assert paths
    return {name: tensor for path in paths for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("name", ["zero-0", "zero-1", "zero-2", "zero-3", *OTHERS])
def test_two_workers_have_the_losses_and_weights_of_one(folder: Path, name: str) -> None:
    alone = trained(folder, f"alone-{name}" if name in OTHERS else "alone")
    for method, artifact in trained(folder, name).items():
        # The keys are the same: no result depends on the scale.
        assert artifact.name == alone[method].name
        found, expected = metrics(artifact), metrics(alone[method])
        assert len(found) == 3 + 1
        for row, same in zip(found, expected, strict=True):
            assert row == pytest.approx(same, rel=1e-4, abs=1e-5)
        tensors = weights(alone[method])
        assert set(weights(artifact)) == set(tensors)
        for key, tensor in weights(artifact).items():
            torch.testing.assert_close(tensor, tensors[key], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", SCALES)
def test_the_engine_is_deepspeeds_under_the_stage_asked_for(folder: Path, name: str) -> None:
    kind = "deepspeed.runtime.engine.DeepSpeedEngine"
    scale = SCALES[name]
    expected = [kind, scale["zero_stage"], scale.get("precision") == "bf16"]
    for rank in range(2):
        assert json.loads((folder / f"{name}-{rank}.json").read_text()) == [expected] * 2


def test_bf16_trains_and_stays_finite(folder: Path) -> None:
    exact = trained(folder, "zero-2")
    for method, artifact in trained(folder, "bf16").items():
        found = metrics(artifact)
        assert all(math.isfinite(value) for row in found for value in row.values())
        tensors = weights(artifact)
        assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
        before = metrics(exact[method])
        assert found[0]["loss"] == pytest.approx(before[0]["loss"], rel=0.1)
        assert found[0]["loss"] != before[0]["loss"]
