"""Cost of checkpoints at the default interval, as a share of the training's time.

python bench/checkpoints.py [20M] [tiny]

Comparing a training that writes a checkpoint every few steps with one that writes none gives the
cost of one checkpoint; at the default interval it is paid every `scale.checkpoint_steps`.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from finetune import BATCH, finetune_job
from workload import model_folder, random_tokens

import torch  # isort: skip  (after the threads are set)

from knife.config.scale import Scale
from knife.data.tokens import Tokens
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.train.context import Context, PlainContext
from knife.train.loop import train

STEPS = 60
INTERVAL = 10
ROUNDS = 5


def seconds(folder: Path, tokens: list[Tokens], interval: int, context: Context) -> float:
    """Time a training of `STEPS` steps with a checkpoint every `interval` of them, in seconds."""
    objective = Objective(load_backbone(folder))
    with tempfile.TemporaryDirectory() as name:
        job = finetune_job(tokens, checkpoint_steps=interval)
        started = time.perf_counter()
        train(objective, job, Path(name), context)
        return time.perf_counter() - started


def main() -> None:
    default = Scale().checkpoint_steps
    for size in sys.argv[1:] or ["20M", "tiny"]:
        tokens = random_tokens(STEPS * BATCH, inputs=64, rationale=1, choices=2, choice=3)
        with tempfile.TemporaryDirectory() as name, PlainContext() as context:
            context.device = torch.device("cpu")
            folder = model_folder(size, Path(name))
            seconds(folder, tokens, STEPS, context)
            rounds = [
                (
                    seconds(folder, tokens, STEPS, context),
                    seconds(folder, tokens, INTERVAL, context),
                )
                for _ in range(ROUNDS)
            ]
        step = statistics.median(without for without, _ in rounds) / STEPS
        # None in the last step: the training is over.
        costs = [(with_ - without) / (STEPS // INTERVAL - 1) for without, with_ in rounds]
        shares = sorted(100 * cost / (default * step) for cost in costs)
        cost = statistics.median(costs)
        print(
            f"{size:5} {1000 * step:7.1f} ms a step, {cost:6.3f} s a checkpoint: "
            f"{statistics.median(shares):.2f} % of the time at one in {default} steps "
            f"({shares[0]:.2f} to {shares[-1]:.2f} in {ROUNDS} rounds)"
        )


if __name__ == "__main__":
    main()
