"""The training loop of the package's tiny models."""

import argparse
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from reading import Reading, reading
from torch import Tensor

ASSETS = Path(__file__).resolve().parents[1] / "knife" / "models" / "assets"
_WARMUP = 200


def options(description: str | None, asset: str, **defaults: float) -> argparse.Namespace:
    """Parse the command line: `--steps`, `--learning-rate`, `--batch-size`, `--seed`, `--out`;
    `asset` is the default folder in the package."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ASSETS / asset)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args()


def pretrain(
    args: argparse.Namespace,
    parameters: Iterable[Tensor],
    step: Callable[[list[Reading]], tuple[Tensor, Tensor, Tensor]],
) -> None:
    """Train on fresh examples in every step; print the answers' mean loss and accuracy every 250
    steps. `step` returns the loss to train on, the answers' loss, and which answers are right."""
    parameters = list(parameters)
    rng = random.Random(args.seed)
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda number: min(
            (number + 1) / _WARMUP, (args.steps - number) / max(args.steps - _WARMUP, 1)
        ),
    )
    start, losses, right = time.monotonic(), [], []
    for number in range(1, args.steps + 1):
        loss, answer_loss, hit_B = step([reading(rng) for _ in range(args.batch_size)])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(answer_loss.item())
        right.append(hit_B.float().mean().item())
        if number % 250 == 0 or number == args.steps:
            mean, accuracy = sum(losses) / len(losses), sum(right) / len(right)
            seconds = time.monotonic() - start
            print(f"step {number} loss {mean:.4f} right {accuracy:.3f} {seconds:.0f} s", flush=True)
            losses, right = [], []
