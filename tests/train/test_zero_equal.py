"""Every ZeRO stage is plain AdamW: exact in fp32, and in bf16 within bf16's noise.

The references are torch alone: a module, AdamW, clipping and the schedule. In bf16 the module is
in bf16, AdamW steps a copy of its weights in fp32, and gradients are summed in fp32.
"""

import functools
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pytest
import torch
from pair import Pair, in_pair
from small import EXAMPLES, tokens_of
from torch import Tensor

from knife.config.run import Training
from knife.config.scale import Scale
from knife.data.batches import Batch, collate, training_rows
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.models.source import EMBEDDED
from knife.train.context import Context, PlainContext, all_reduce_sum
from knife.train.engine import gathered_state, schedule, start_engine

TINY = EMBEDDED["tiny-t5"]
STEPS = 12
STAGES = (0, 1, 2, 3)
CASES = [("fp32", 1), ("fp32", 2), ("bf16", 1), ("bf16", 2)]


@dataclass(frozen=True)
class Trained:
    """The loss of every step, and the weights at the end."""

    losses: list[float]
    weights: dict[str, Tensor]

    def far(self, other: "Trained") -> float:
        """Return the mean difference of losses: the largest one of few steps differs by CPU."""
        pairs = zip(self.losses, other.losses, strict=True)
        return fmean(abs(one - two) for one, two in pairs)

    def moved(self, other: "Trained") -> float:
        """Return the largest difference of weights."""
        pairs = ((self.weights[name], tensor) for name, tensor in other.weights.items())
        return max(float((one.float() - two.float()).abs().max()) for one, two in pairs)


def training(precision: str, accumulate: int) -> Training:
    """Return settings with clipped steps; large ones in bf16, to show DeepSpeed's hidden step."""
    rate = 3e-3 if precision == "bf16" else 3e-4
    return Training(
        epochs=1, learning_rate=rate, batch_size=8, warmup=0.2, clip=0.5, accumulate=accumulate
    )


def steps(parts: int) -> Iterator[list[Batch]]:
    """Return the batches of each step in parts; the last batch of an epoch is not full."""
    tokens, pad = tokens_of(TINY, EXAMPLES)
    lengths = [len(t.input_ids) for t in tokens]
    epochs = (training_rows(lengths, 8, 0, epoch) for epoch in itertools.count())
    for rows in itertools.islice(itertools.chain.from_iterable(epochs), STEPS):
        yield [collate(tokens, rows.part(part, parts), pad, False) for part in range(parts)]


def engine_trained(settings: Training, scale: Scale, context: Context) -> Trained:
    """Train with our engine."""
    workers = context.world_size
    objective = Objective(load_backbone(TINY))
    engine = start_engine(objective, settings, scale, workers, STEPS)
    engine.train()
    losses = []
    for parts in steps(settings.accumulate * workers):
        loss = torch.zeros(1)
        for batch in parts[context.rank :: workers]:
            output = engine(batch)
            engine.backward(output.loss)
            engine.step()
            loss += output.loss.detach() / len(parts)
        losses.append(float(all_reduce_sum(loss)))
    weights = gathered_state(engine.module)
    engine.destroy()
    return Trained(losses, weights)


@functools.cache
def plain(of: str, accumulate: int, precision: str = "", *, hidden_step: bool = False) -> Trained:
    """Train as an engine of a precision does with torch alone, in that or another precision,
    optionally after DeepSpeed's step with zero gradients."""
    settings, precision = training(of, accumulate), precision or of
    objective = Objective(load_backbone(TINY)).train()
    if precision == "bf16":
        objective = objective.bfloat16()
    parameters = list(objective.parameters())
    masters = [p.detach().clone().float() for p in parameters]
    optimizer = torch.optim.AdamW(
        masters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    warmup = round(settings.warmup * STEPS)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(warmup, STEPS))
    if hidden_step:
        for master in masters:
            master.grad = torch.zeros_like(master)
        optimizer.step()
    losses = []
    for parts in steps(settings.accumulate):
        for master in masters:
            master.grad = torch.zeros_like(master)
        losses.append(0.0)
        for batch in parts:
            loss = objective(batch).loss
            (loss / len(parts)).backward()
            losses[-1] += float(loss) / len(parts)
            for master, parameter in zip(masters, parameters, strict=True):
                assert master.grad is not None
                assert parameter.grad is not None
                master.grad += parameter.grad.float()
                parameter.grad = None
        torch.nn.utils.clip_grad_norm_(masters, settings.clip)
        optimizer.step()
        rates.step()
        with torch.no_grad():
            for master, parameter in zip(masters, parameters, strict=True):
                parameter.copy_(master)
    return Trained(losses, {n: p.detach().clone() for n, p in objective.named_parameters()})


def noise(accumulate: int) -> float:
    """Return the effect of bf16 itself: how far losses are from those of fp32."""
    return plain("bf16", accumulate).far(plain("bf16", accumulate, "fp32"))


@pytest.fixture(scope="module")
def trained() -> dict[tuple[str, int, int], Trained]:
    """Train with engines of every stage."""
    with PlainContext() as context:
        context.device = torch.device("cpu")
        return {
            (precision, accumulate, stage): engine_trained(
                training(precision, accumulate),
                Scale.model_validate({"precision": precision, "zero_stage": stage}),
                context,
            )
            for precision, accumulate in CASES
            for stage in STAGES
        }


@pytest.mark.parametrize("accumulate", [1, 2])
def test_in_fp32_every_stage_is_plain_adamw(
    trained: dict[tuple[str, int, int], Trained], accumulate: int
) -> None:
    found = [plain("fp32", accumulate)]
    found += [trained["fp32", accumulate, stage] for stage in STAGES]
    for one, two in itertools.combinations(found, 2):
        assert one.far(two) < 1e-5
        assert one.moved(two) < 1e-5


@pytest.mark.parametrize("accumulate", [1, 2])
def test_in_bf16_every_stage_is_adamw_on_fp32_weights(
    trained: dict[tuple[str, int, int], Trained], accumulate: int
) -> None:
    found = [plain("bf16", accumulate)] + [trained["bf16", accumulate, stage] for stage in STAGES]
    bound = noise(accumulate)
    for one, two in itertools.combinations(found, 2):
        assert one.far(two) < bound
    # The bound must detect this: one step with zero gradients before the first.
    assert plain("bf16", accumulate, hidden_step=True).far(found[0]) > 2 * bound
    assert {tensor.dtype for each in found for tensor in each.weights.values()} == {torch.bfloat16}


def two_workers(context: Pair, folder: Path) -> None:
    """Write the losses of two workers in bf16 to a file."""
    found = {
        f"{stage} {accumulate}": engine_trained(
            training("bf16", accumulate),
            Scale.model_validate({"precision": "bf16", "zero_stage": stage, "workers": 2}),
            context,
        ).losses
        for stage in (0, 1, 3)
        for accumulate in (1, 2)
    }
    if context.rank == 0:
        (folder / "losses.json").write_text(json.dumps(found))


def test_two_workers_in_bf16_have_the_losses_of_the_reference(tmp_path: Path) -> None:
    in_pair(two_workers, tmp_path)()
    losses = json.loads((tmp_path / "losses.json").read_text())
    for accumulate in (1, 2):
        bound = noise(accumulate)
        found = [plain("bf16", accumulate)]
        found += [Trained(losses[f"{stage} {accumulate}"], {}) for stage in (0, 1, 3)]
        for one, two in itertools.combinations(found, 2):
            assert one.far(two) < bound
