"""How long a sweep will take, from steps measured here and now."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from knife.data.batches import Rows, collate, evaluation_rows, training_rows
from knife.data.example import Splits
from knife.data.tokens import tokenize
from knife.method.backbone import load_backbone, load_tokenizer
from knife.method.objective import Objective
from knife.plan import Plan
from knife.steps import total_steps, training_examples
from knife.train.evaluate import BATCH_SIZE
from knife.train.quiet import quiet
from knife.train.stage import Stage, StatesStage, StudentStage, TeacherStage

# A measurement is over when it has lasted so long, whatever it has seen until then.
SECONDS = 2.0
# Models and batches that are measured; of more, the others count as the last one.
_MOST = 8


@dataclass(frozen=True)
class Pace:
    """Seconds of a training step, and of a batch of an evaluation."""

    step: float
    evaluation: float


class Stopwatch:
    """Measures each kind of training once: steps of the real model on the real data."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Pace] = {}

    def seconds(self, stage: Stage, plan: Plan) -> float:
        """About how long a stage takes in one worker on this machine, to the last epoch."""
        splits = plan.data[stage.data]
        if isinstance(stage, TeacherStage | StudentStage):
            pace = self._pace(stage, splits)
            times = math.ceil(stage.training.epochs / stage.training.evaluate_epochs)
            batches = math.ceil(len(splits.dev) / BATCH_SIZE)
            return total_steps(stage, splits) * pace.step + times * batches * pace.evaluation
        if isinstance(stage, StatesStage):
            teacher = next(s for s in plan.stages if s.key == stage.teacher)
            assert isinstance(teacher, TeacherStage)
            pace = self._pace(teacher, splits)
            return math.ceil(len(splits.train) / BATCH_SIZE) * pace.evaluation
        return 0.0

    def _pace(self, stage: TeacherStage | StudentStage, splits: Splits) -> Pace:
        training = stage.training
        batch = training.batch_size // training.accumulate
        kind = (stage.kind, stage.model.identity, batch, training.accumulate, stage.max_tokens)
        if kind not in self._known and len(self._known) < _MOST:
            self._known[kind] = _measure(stage, splits, batch)
        return self._known.get(kind) or list(self._known.values())[-1]


def _measure(stage: TeacherStage | StudentStage, splits: Splits, batch_size: int) -> Pace:
    """Some steps of a training, without DeepSpeed, on a GPU where there is one."""
    quiet()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = stage.model.local()
    rationale = isinstance(stage, TeacherStage)
    tokenizer = load_tokenizer(folder, "model")
    examples = training_examples(stage, splits)[: 8 * max(batch_size, BATCH_SIZE)]
    tokens, _ = tokenize(examples, tokenizer, stage.max_tokens)
    lengths = [len(t.input_ids) + rationale * len(t.rationale_ids) for t in tokens]
    objective = Objective(load_backbone(folder, seed=0)).to(device)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-9)

    def forward(rows: Rows) -> torch.Tensor:
        batch = collate(tokens, rows, tokenizer.pad_token_id or 0, rationale)
        return objective(batch.to(device)).loss  # type: ignore[no-any-return]

    def step(rows: Rows) -> None:
        torch.autograd.backward(forward(rows))
        optimizer.step()
        optimizer.zero_grad()

    threads = torch.get_num_threads()
    # A trial of one worker has one CPU.
    torch.set_num_threads(1)
    try:
        seconds = _mean_seconds(step, training_rows(lengths, batch_size, 0, 0), device)
        with torch.no_grad():
            evaluation = _mean_seconds(forward, evaluation_rows(lengths, BATCH_SIZE), device)
    finally:
        torch.set_num_threads(threads)
    return Pace(seconds * stage.training.accumulate, evaluation)


def _mean_seconds(work: Any, batches: Sequence[Rows], device: torch.device) -> float:
    """Mean seconds a batch, the first one aside, which is slow, unless it is all there is time
    for."""
    times: list[float] = []
    started = time.monotonic()
    for rows in batches:
        before = time.monotonic()
        work(rows)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - before)
        if time.monotonic() - started > SECONDS:
            break
    return sum(times[1:] or times) / len(times[1:] or times)
