"""The training loop, hand-written around a DeepSpeed engine.

Every global batch is the same at any number of workers, and an interrupted training that resumes
from a checkpoint takes exactly the steps it would have taken: order and dropout depend only on
seed and step.
"""

import math
import resource
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.random import SeedSequence

from knife.compat.deepspeed import forget_moments
from knife.config.run import Training
from knife.config.scale import Scale
from knife.core.atomic import write_json
from knife.core.errors import NotFiniteError
from knife.core.exits import Terminated
from knife.data.batches import Batch, Rows, collate, training_rows
from knife.data.several import Drawn
from knife.data.token_table import sequence_lengths
from knife.data.tokens import Tokens
from knife.method.objective import Objective, TeacherBatch
from knife.train.checkpoint import Checkpoints, TrainingState
from knife.train.context import Context, all_reduce_sum, barrier, broadcast
from knife.train.divergence import FirstBad, diverged_on_dev
from knife.train.engine import gathered_state, start_engine
from knife.train.evaluate import GenerationSpec, answer_split, measures
from knife.train.journal import Journal
from knife.train.mirror import Mirror
from knife.train.results import TRAINED
from knife.train.shares import write_shares
from knife.train.stop import Agreement, noted

LOG_STEPS = 10


@dataclass(frozen=True)
class Job:
    """Data and settings of one training.

    Attributes:
        train, dev: tokenized splits.
        ids, dev_ids: the examples' ids.
        pad_id: the tokenizer's padding token.
        rationale: whether the model reads `[I ; R]` (a teacher) or `[I]`.
        teacher: returns the teacher's hidden states for the rows of a batch, or None.
        asking: how the model is queried on dev.
        explanations: the second task of `step_by_step`, by row, or None.
        save: writes a gathered state dict of the backbone into a folder.
        begin: called before each epoch with its number from 0, for examples that change with it.
        anew: whether an epoch's task is another than that of the one before: then the optimizer
            forgets its moments, and patience begins again.
        evaluated: called after every evaluation on dev with epochs trained and metrics.
    """

    train: Sequence[Tokens]
    ids: Sequence[str]
    dev: Sequence[Tokens]
    dev_ids: Sequence[str]
    pad_id: int
    rationale: bool
    teacher: Callable[[Rows, Batch], TeacherBatch] | None
    save: Callable[[Path, dict[str, torch.Tensor]], None]
    training: Training
    scale: Scale
    seed: int
    asking: GenerationSpec = field(default_factory=GenerationSpec)
    explanations: Sequence[Tokens] | None = None
    begin: Callable[[int], None] | None = None
    anew: Callable[[int], bool] | None = None
    evaluated: Callable[[int, dict[str, float]], None] | None = None


class _Means:
    """Means of the losses over ranks, accumulation and the steps since the last `take`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._sums: dict[str, torch.Tensor] = {}
        self._count = 0
        self.first_bad = FirstBad(context.device)

    def add(self, parts: dict[str, torch.Tensor], step: int) -> None:
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.float()
        self._count += 1
        self.first_bad.add(parts, step)

    def take(self) -> dict[str, float]:
        names = sorted(self._sums)
        sums = (
            all_reduce_sum(torch.stack([self._sums[n] for n in names])) / self._context.world_size
        )
        means = dict(zip(names, (sums / self._count).tolist(), strict=True))
        self._sums, self._count = {}, 0
        return means


def train(
    objective: Objective, job: Job, work: Path, context: Context, mirror: Mirror | None = None
) -> None:
    """Train to the end, from the last checkpoint if any, and write the best model to `work/model`.

    The best epoch is the one with the highest accuracy on dev, then the lowest loss. A `mirror`
    keeps checkpoints in a bucket too.

    Raises:
        Terminated: a worker received SIGTERM; the last step has a checkpoint.
        TrainingDivergedError: loss, gradient, weights or outputs on dev became NaN or infinite.
            No model is left then, even if one of an earlier epoch was finite.
    """
    if not broadcast((work / TRAINED).is_file()):
        with noted() as terminated, Checkpoints(work, context, mirror) as checkpoints:
            _TrainState(objective, job, work, context, checkpoints).run(terminated)
    barrier()
    # Each host may have its own work folder.
    if context.rank == (mirror.leader if mirror else 0):
        _clean(work)


class _TrainState:
    """A training under way on one rank; all ranks call every method together.

    Attributes:
        state: what a checkpoint keeps of it.
        saved_step, logged_step: steps done at the last checkpoint, and at the last row of losses.
        examples, tokens: numbers of those read since `logged_at`.
        examples_taken: number of examples that this rank trained on.
    """

    def __init__(
        self,
        objective: Objective,
        job: Job,
        work: Path,
        context: Context,
        checkpoints: Checkpoints,
    ) -> None:
        """Begin a training, or resume it from its last checkpoint."""
        self.job, self.work, self.context, self.checkpoints = job, work, context, checkpoints
        training, scale = job.training, job.scale
        self.steps_per_epoch = math.ceil(len(job.train) / training.batch_size)
        total_steps = self.steps_per_epoch * training.epochs
        found = checkpoints.find(scale.zero_stage, scale.precision)
        self.engine = start_engine(
            objective, training, scale, context.world_size, total_steps, universal=found.converted
        )
        self.means = _Means(context)
        self.means.first_bad.watch(self.engine)
        self.state = found.load(self.engine)
        step = self.state.step
        if step:
            self.state.resumed.append(step)
        self.journal = Journal(work, step) if context.rank == 0 else None
        if self.journal:
            for note in found.notes:
                self.journal.note(step, note)
        self.lengths = (
            job.train.lengths
            if isinstance(job.train, Drawn)
            else sequence_lengths(job.train, rationale=job.rationale)
        )
        self.started = time.monotonic() - self.state.seconds
        self.saved_step = self.logged_step = step
        self.logged_at = time.monotonic()
        self.examples = self.tokens = self.examples_taken = 0

    def run(self, terminated: Callable[[], bool]) -> None:
        """Train to the end, or up to a checkpoint if the rank was `terminated`."""
        training, state = self.job.training, self.state
        agreement = Agreement(self.context)
        while state.epoch < training.epochs:
            anew = self.job.anew is not None and self.job.anew(state.epoch)
            if _patience_is_out(state, training) and not anew:
                break
            self.engine.train()
            if self.job.begin:
                self.job.begin(state.epoch)
            # A checkpoint within an epoch has the moments since then.
            if anew and state.batch == 0:
                forget_moments(self.engine)
                state.worse = 0
            batches = training_rows(self.lengths, training.batch_size, self.job.seed, state.epoch)
            while state.batch < len(batches):
                self.step(batches[state.batch])
                stop = agreement.reached(terminated() or self.context.stop_requested())
                last = state.batch == len(batches)
                due = stop or self.checkpoint_is_due()
                # A row at each checkpoint, so that a training resumed from it loses no means.
                if last or due or state.step % LOG_STEPS == 0 or self.engine.skipped_steps:
                    self.log_losses(batches)
                if stop or (due and not last):
                    self.checkpoint()
                if stop:
                    self.checkpoints.settle()
                    raise Terminated
            state.epoch, state.batch = state.epoch + 1, 0
            if state.epoch % training.evaluate_epochs == 0 or state.epoch == training.epochs:
                self.evaluate()
            if self.checkpoint_is_due():
                self.checkpoint()
            self.logged_at = time.monotonic()
        self.finish()

    def step(self, batch: Rows) -> None:
        """Take an optimizer step on a global batch."""
        job, state, context = self.job, self.state, self.context
        for number, part in enumerate(_parts(batch, job.training, context)):
            torch.manual_seed(dropout_seed(job.seed, state.step, context.rank, number))
            self.means.add(_micro_step(self.engine, job, part, context), state.step)
            self.examples_taken += sum(weight > 0 for weight in part.weights)
            context.heartbeat()
        read = [row for row, weight in zip(batch.rows, batch.weights, strict=True) if weight]
        self.examples += len(read)
        self.tokens += sum(self.lengths[row] for row in read)
        self.means.first_bad.add_gradient(self.engine, state.step)
        state.step, state.batch = state.step + 1, state.batch + 1

    def log_losses(self, batches: Sequence[Rows]) -> None:
        """Log mean losses and speed since the last time.

        Raises:
            TrainingDivergedError: one of the steps since then had a number that is not finite.
        """
        state, first_bad = self.state, self.means.first_bad
        metrics = self.means.take()
        if what := first_bad.found(self.engine, metrics):
            since = batches[state.batch - (state.step - self.logged_step) : state.batch]
            own = [_parts(rows, self.job.training, self.context) for rows in since]
            ids = [[self.job.ids[row] for part in parts for row in part.rows] for parts in own]
            self.checkpoints.settle()
            raise first_bad.error(what, ids, state.step, self.checkpoints.last_step)
        seconds = max(time.monotonic() - self.logged_at, 1e-9)
        metrics["examples_per_second"] = self.examples / seconds
        metrics["tokens_per_second"] = self.tokens / seconds
        metrics["learning_rate"] = self.engine.get_lr()[0]
        self.log(metrics)
        self.logged_step, self.logged_at = state.step, time.monotonic()
        self.examples = self.tokens = 0

    def log(self, metrics: dict[str, float]) -> None:
        """Add a row to the journal, which rank 0 writes."""
        if self.journal:
            self.journal.add(self.state.step, self.state.step / self.steps_per_epoch, metrics)

    def checkpoint_is_due(self) -> bool:
        """Whether enough steps were done since the last checkpoint."""
        return self.state.step - self.saved_step >= self.job.scale.checkpoint_steps

    def checkpoint(self) -> None:
        """Save a checkpoint."""
        self.state.seconds = time.monotonic() - self.started
        self.checkpoints.save(self.engine, self.state)
        self.saved_step, self.logged_at = self.state.step, time.monotonic()

    def evaluate(self) -> None:
        """Evaluate on dev, and save the model at once if it is the best so far.

        Raises:
            TrainingDivergedError: outputs are not finite.
        """
        job, state = self.job, self.state
        self.engine.eval()
        try:
            answers = answer_split(
                self.engine, job.dev, job.dev_ids, job.pad_id, self.context, job.asking
            )
        except NotFiniteError as error:
            self.checkpoints.settle()
            raise diverged_on_dev(error, state.step, self.checkpoints.last_step) from None
        found = measures(answers, job.dev)
        accuracy, loss = found["accuracy"], found["loss"]
        state.worse += 1
        if state.best_loss is None or (accuracy, -loss) > (state.best_accuracy, -state.best_loss):
            state.best_accuracy, state.best_loss = accuracy, loss
            state.best_step, state.worse = state.step, 0
            weights = gathered_state(self.engine.module.backbone)
            if self.context.rank == 0:
                folder = state.best_folder(self.work)
                shutil.rmtree(folder, ignore_errors=True)
                job.save(folder, weights)
            barrier()
        metrics = {f"dev_{name}": value for name, value in found.items()}
        self.log(metrics)
        if job.evaluated:
            job.evaluated(state.epoch, metrics)

    def finish(self) -> None:
        """Make the best model the result."""
        self.checkpoints.settle()
        write_shares(self.work, self.context, self.examples_taken)
        if self.journal:
            self.journal.close()
            _write_result(self.work, self.state, time.monotonic() - self.started)
        self.engine.destroy()
        barrier()


def dropout_seed(seed: int, step: int, rank: int, part: int) -> int:
    """Return the seed of a rank's dropout in a part of a step.

    It depends only on these four, so that no random-generator state need be saved.
    """
    # As in torch, a negative seed is the one that is 2**64 larger.
    sequence = SeedSequence([seed % 2**64, step, rank, part])
    return int(sequence.generate_state(1)[0])


def _parts(rows: Rows, training: Training, context: Context) -> list[Rows]:
    """Return this rank's parts of a global batch, one per accumulation step."""
    parts = training.accumulate * context.world_size
    return [rows.part(part, parts) for part in range(context.rank, parts, context.world_size)]


def _micro_step(engine: Any, job: Job, rows: Rows, context: Context) -> dict[str, torch.Tensor]:
    batch = collate(job.train, rows, job.pad_id, job.rationale).to(context.device)
    teacher = job.teacher(rows, batch) if job.teacher else None
    explanation = None
    if job.explanations is not None:
        explanation = collate(job.explanations, rows, job.pad_id, False).to(context.device)
    losses = engine(batch, teacher, explanation)
    engine.backward(losses.loss)
    engine.step()
    parts: dict[str, torch.Tensor] = losses.parts
    return parts


def _patience_is_out(state: TrainingState, training: Training) -> bool:
    return training.patience is not None and state.worse >= training.patience


def _write_result(work: Path, state: TrainingState, seconds: float) -> None:
    """Make the best model the result; a training with a `TRAINED` file is finished."""
    model = work / "model"
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(state.best_folder(work), model)
    write_json(
        work / TRAINED,
        {
            "steps": state.step,
            "epochs": state.epoch,
            "best_step": state.best_step,
            "dev_accuracy": state.best_accuracy,
            "dev_loss": state.best_loss,
            "seconds": round(seconds, 3),
            # The peak of this process so far.
            "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1),
        }
        | _gpu_memory()
        | ({"resumed": state.resumed} if state.resumed else {}),
    )


def _gpu_memory() -> dict[str, float]:
    if not torch.cuda.is_available():
        return {}
    return {"gpu_memory_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1)}


def _clean(work: Path) -> None:
    """Remove everything that only the training needed."""
    shutil.rmtree(work / "checkpoints", ignore_errors=True)
    for folder in work.glob("best-*"):
        shutil.rmtree(folder)
