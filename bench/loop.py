"""Cost of the training loop (engine, data, journal) over a bare torch loop on the same batches.

python bench/loop.py [20M] [tiny]
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from finetune import BATCH, finetune_job
from workload import model_folder, random_tokens

import torch  # isort: skip  (after the threads are set)

from knife.data.batches import collate, training_rows
from knife.data.tokens import Tokens
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.train.context import Context, PlainContext
from knife.train.engine import schedule
from knife.train.loop import LOG_STEPS, train


def bare(folder: Path, tokens: list[Tokens], steps: int) -> float:
    """Return seconds per step of a minimal torch loop on batches that are ready in memory."""
    objective = Objective(load_backbone(folder)).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(3, steps))
    rows = training_rows([len(t.input_ids) for t in tokens], BATCH, 0, 0)[:steps]
    batches = [collate(tokens, r, 0, False) for r in rows]
    started = 0.0
    for number, batch in enumerate(batches):
        if number == LOG_STEPS:
            started = time.perf_counter()
        optimizer.zero_grad()
        objective(batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        rates.step()
    return (time.perf_counter() - started) / (steps - LOG_STEPS)


def ours(folder: Path, tokens: list[Tokens], steps: int, stage: int, context: Context) -> float:
    """Return seconds per step of the training loop, by its own journal."""
    objective = Objective(load_backbone(folder))
    with tempfile.TemporaryDirectory() as name:
        job = finetune_job(tokens[: steps * BATCH], zero_stage=stage)
        train(objective, job, Path(name), context)
        lines = (Path(name) / "journal.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    losses = [row for row in rows if "loss" in row["metrics"]]
    first, last = losses[0], losses[-1]
    seconds: float = (last["time"] - first["time"]) / (last["step"] - first["step"])
    return seconds


def main() -> None:
    for size in sys.argv[1:] or ["20M", "tiny"]:
        steps = 40 if size == "20M" else 100
        tokens = random_tokens(steps * BATCH, inputs=64, rationale=1, choices=2, choice=3)
        with tempfile.TemporaryDirectory() as name, PlainContext() as context:
            context.device = torch.device("cpu")
            folder = model_folder(size, Path(name))
            seconds: dict[str, list[float]] = {}
            for _ in range(3):
                seconds.setdefault("bare torch loop", []).append(bare(folder, tokens, steps))
                for stage in range(4):
                    taken = ours(folder, tokens, steps, stage, context)
                    seconds.setdefault(f"knife, ZeRO {stage}", []).append(taken)
            base = sorted(seconds["bare torch loop"])[1]
            for way, values in seconds.items():
                value = sorted(values)[1]
                ratio = value / base
                print(f"{size:5} {way:16} {1000 * value:8.1f} ms a step  {ratio:.3f} x bare")


if __name__ == "__main__":
    main()
