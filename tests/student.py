"""A small student's training that a test can interrupt at any step."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from small import EXAMPLES, tokens_of
from torch import Tensor

from knife.config.run import Align, Training
from knife.config.scale import Scale
from knife.data.batches import Batch, Rows, collate
from knife.method.objective import Alignment, Objective, TeacherBatch
from knife.method.states import OnlineTeacher
from knife.models.load import load_backbone
from knife.models.lora import add_adapters, merged
from knife.models.tokenizer import load_tokenizer
from knife.train.context import Context
from knife.train.loop import Job, train

# 26 examples in batches of 8: four steps an epoch, the last batch not full.
TRAINING = Training(epochs=3, learning_rate=3e-3, batch_size=8, warmup=0.1)


class KilledError(Exception):
    """Raised inside a training to simulate a kill."""


class Student:
    """A knife student of a tiny model, whose teacher can be made to fail at a step, to return
    states that are not finite, or to do something else (`at_step`)."""

    def __init__(self, folder: Path, training: Training = TRAINING, **scale: Any) -> None:
        self.folder = folder
        tokens, pad = tokens_of(folder, EXAMPLES)
        teacher = load_backbone(folder, seed=7)
        online = OnlineTeacher(teacher, [teacher.depth])
        self.steps = 0
        self.fail_at = -1
        self.nan_at = -1
        self.at_step: dict[int, Callable[[], None]] = {}
        self.last_rows: list[int] = []
        self.align = Align()
        self.backbone: Any = None

        def states(rows: Rows, _batch: Batch) -> TeacherBatch:
            self.steps += 1
            self.last_rows = rows.rows
            if self.steps == self.fail_at:
                raise KilledError
            self.at_step.get(self.steps, lambda: None)()
            found = online.batch(collate(tokens, rows, pad, True))
            if self.steps == self.nan_at:
                found.input_states[teacher.depth][0] *= math.nan
            return found

        self.job = Job(
            train=tokens,
            ids=[example.id for example in EXAMPLES],
            dev=tokens[:12],
            dev_ids=[example.id for example in EXAMPLES[:12]],
            pad_id=pad,
            rationale=False,
            teacher=states,
            save=self.save,
            training=training,
            scale=Scale(**scale),
            seed=0,
        )

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        self.backbone.save(folder, merged(self.backbone, state))
        load_tokenizer(self.folder, "model").save_pretrained(folder)

    def train(self, work: Path, context: Context, fail_at: int = -1) -> list[dict[str, Any]]:
        """Train, resuming if possible, or fail at step `fail_at`; return the journal's rows."""
        work.mkdir(exist_ok=True)
        self.backbone = load_backbone(self.folder)
        if lora := self.job.training.lora:
            add_adapters(self.backbone, lora, 0)
        depth, width = self.backbone.depth, self.backbone.width
        alignment = Alignment(self.align, ((depth, depth),), width, width, {depth: 1.0})
        self.steps, self.fail_at = 0, fail_at
        train(Objective(self.backbone, alignment), self.job, work, context)
        return rows(work)


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return a journal's rows without what depends on the clock."""
    found = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for row in found:
        del row["time"]
        for rate in ("examples_per_second", "tokens_per_second"):
            row["metrics"].pop(rate, None)
    return found


def weights(work: Path) -> dict[str, Tensor]:
    return {
        name: tensor
        for path in sorted((work / "model").glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    assert set(first) == set(second)
    assert first
    return all(torch.equal(first[name], second[name]) for name in first)
