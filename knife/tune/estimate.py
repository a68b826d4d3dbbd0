"""How long a sweep will take, estimated from steps timed on this machine."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from knife.data.batches import Rows, collate, evaluation_rows, training_rows
from knife.data.example import Splits
from knife.data.forms import training_tokens
from knife.data.tokenizing import tokenize
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.models.quiet import quiet
from knife.models.tokenizer import load_tokenizer
from knife.plan.plan import Plan
from knife.plan.stage import Stage, StatesStage, StudentStage, TeacherStage
from knife.plan.steps import total_steps, training_examples
from knife.train.context import PlainContext
from knife.train.evaluate import BATCH_SIZE, Explains, GenerationSpec, answer_split
from knife.train.prompting import student_demonstrations
from knife.train.stage_context import Split

# A measurement stops after this many seconds, however many batches it has timed.
SECONDS = 2.0
# At most this many kinds of training are measured; further ones take the pace of the last.
_MOST = 12


@dataclass(frozen=True)
class Pace:
    """Seconds per training step and per evaluation batch."""

    step: float
    evaluation: float


class Stopwatch:
    """Measures each kind of training once: steps of the real model on the real data."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Pace] = {}
        self._unmeasured: set[tuple[Any, ...]] = set()

    def seconds(self, stage: Stage, plan: Plan) -> float:
        """Estimate how long a stage takes to its last epoch, in one worker on this machine."""
        splits = plan.data[stage.data]
        if isinstance(stage, TeacherStage | StudentStage):
            pace = self._pace(stage, splits)
            times = math.ceil(stage.training.epochs / stage.training.evaluate_epochs)
            times = 1 if _method(stage) == "prompt" else times
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
        about = (_method(stage), stage.model.identity, stage.max_tokens)
        kind = (*about, batch, training.accumulate)
        if kind not in self._known and len(self._known) < _MOST:
            self._known[kind] = _measure(stage, splits, batch)
        if kind not in self._known:
            self._unmeasured.add(kind)
            return list(self._known.values())[-1]
        return self._known[kind]

    def notes(self) -> list[str]:
        """Return a note if some kinds of training were not measured."""
        if not self._unmeasured:
            return []
        kinds = len(self._known) + len(self._unmeasured)
        return [
            f"time is a guess for {len(self._unmeasured)} of {kinds} kinds of training: only "
            f"{_MOST} are measured, and the others are taken to be as fast as the last of them"
        ]


def _method(stage: TeacherStage | StudentStage) -> str:
    return stage.method if isinstance(stage, StudentStage) else stage.kind


def _measure(stage: TeacherStage | StudentStage, splits: Splits, batch_size: int) -> Pace:
    """Time some training steps, without DeepSpeed and alignment, and some answers; on a GPU if
    there is one."""
    quiet()
    context, method = PlainContext(), _method(stage)
    folder = stage.model.local()
    tokenizer = load_tokenizer(folder, "model")
    examples = training_examples(stage, splits)[: 8 * max(batch_size, BATCH_SIZE)]
    tokens, _ = tokenize(examples, tokenizer, stage.max_tokens)
    split = Split(examples, tokens, tokenizer, tokenizer.pad_token_id or 0)
    if isinstance(stage, StudentStage):
        split = split.behind(student_demonstrations(stage, examples), stage.demonstration_tokens)
    trained, explanations = training_tokens(method, split.tokens, tokenizer)
    most = max(len(ids) for example in trained for ids in example.choice_ids)
    explains: Explains = "first" if method == "explain_then_answer" else "no"
    asking = GenerationSpec(method == "teacher", explains, most, 0, tokenizer)
    reads = method in ("teacher", "rationale_input")
    objective = Objective(load_backbone(folder, seed=0)).to(context.device)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-9)

    def loss(rows: Rows) -> torch.Tensor:
        batch = collate(trained, rows, split.pad_id, reads).to(context.device)
        second = None
        if explanations is not None:
            second = collate(explanations, rows, split.pad_id, False).to(context.device)
        return objective(batch, None, second).loss  # type: ignore[no-any-return]

    def answer(rows: Rows) -> None:
        asked = [split.tokens[row] for row in rows.rows]
        ids = [split.ids[row] for row in rows.rows]
        answer_split(objective, asked, ids, split.pad_id, context, asking)

    def step(rows: Rows) -> None:
        torch.autograd.backward(loss(rows))
        optimizer.step()
        optimizer.zero_grad()

    threads = torch.get_num_threads()
    # A one-worker trial has one CPU.
    torch.set_num_threads(1)
    try:
        lengths = [len(t.input_ids) + reads * len(t.rationale_ids) for t in trained]
        evaluation = _mean_seconds(answer, evaluation_rows(lengths, BATCH_SIZE), context.device)
        if method == "prompt":
            return Pace(0.0, evaluation)
        seconds = _mean_seconds(step, training_rows(lengths, batch_size, 0, 0), context.device)
    finally:
        torch.set_num_threads(threads)
    return Pace(seconds * stage.training.accumulate, evaluation)


def _mean_seconds(work: Any, batches: Sequence[Rows], device: torch.device) -> float:
    """Return the mean seconds per batch, without the slow first batch unless it is the only one."""
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
