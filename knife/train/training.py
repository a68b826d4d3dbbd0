"""The stages that train: teacher and student."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from knife.data.batches import Batch, Rows, collate
from knife.method.backbone import load_backbone, load_tokenizer
from knife.method.objective import Alignment, Objective, TeacherBatch
from knife.method.states import OnlineTeacher, StoredStates, Summary
from knife.train.checkpoint import write_json
from knife.train.loop import Job, train
from knife.train.place import MODEL_SETTINGS, Place, load_published
from knife.train.stage import StudentStage, TeacherStage

TeacherSource = Callable[[Rows, Batch], TeacherBatch]


def train_teacher(stage: TeacherStage, place: Place) -> None:
    """Finetune the teacher on task input and rationale, with or without the bottleneck."""
    folder = stage.model.local()
    torch.manual_seed(stage.seed)
    backbone = load_backbone(folder, bottleneck=stage.bottleneck, seed=stage.seed)
    train_split = place.split(stage, folder, "train")
    dev_split = place.split(stage, folder, "dev")
    # The teacher is for reading rationales; examples without one would teach it to guess.
    explained = [row for row, t in enumerate(train_split.tokens) if t.rationale_ids]
    job = Job(
        train=[train_split.tokens[row] for row in explained],
        ids=[train_split.ids[row] for row in explained],
        dev=[t for t in dev_split.tokens if t.rationale_ids] or dev_split.tokens,
        pad_id=train_split.pad_id,
        rationale=True,
        teacher=None,
        save=_saver(backbone, folder, stage),
        training=stage.training,
        scale=place.scale,
        seed=stage.seed,
    )
    train(Objective(backbone), job, place.work, place.context, place.mirror(stage))


def train_student(stage: StudentStage, place: Place) -> None:
    """Train a student by its method; its model never holds anything of the teacher's."""
    folder = stage.model.local()
    if stage.method == "teacher_init":
        assert stage.teacher is not None
        folder = place.model("teacher", stage.teacher)
    torch.manual_seed(stage.seed)
    backbone = load_backbone(folder, seed=stage.seed)
    objective, teacher = Objective(backbone), None
    if stage.method == "knife":
        assert stage.align is not None
        assert stage.states is not None
        states = place.store.path("states", stage.states)
        summary = Summary.read(states)
        widths = (summary.width, summary.output_width)
        alignment = Alignment(stage.align, stage.layers, *widths, summary.variance)
        objective = Objective(backbone, alignment)
        teacher = _stored(states) if summary.stored else _online(stage, place, summary)
    train_split = place.split(stage, folder, "train")
    job = Job(
        train=train_split.tokens,
        ids=train_split.ids,
        dev=place.split(stage, folder, "dev").tokens,
        pad_id=train_split.pad_id,
        rationale=False,
        teacher=teacher,
        save=_saver(backbone, folder, stage),
        evaluated=partial(place.context.evaluated, stage),
        training=stage.training,
        scale=place.scale,
        seed=stage.seed,
    )
    train(objective, job, place.work, place.context, place.mirror(stage))


def _stored(folder: Path) -> TeacherSource:
    states = StoredStates(folder)
    return lambda _, batch: states.batch(batch)


def _online(stage: StudentStage, place: Place, summary: Summary) -> TeacherSource:
    """The frozen teacher beside the student: outside its module, so never in its state dict."""
    assert stage.teacher is not None
    folder = place.model("teacher", stage.teacher)
    split = place.split(stage, folder, "train")
    device = place.context.device
    online = OnlineTeacher(load_published(folder).to(device), summary.layers)

    def teacher(rows: Rows, _: Batch) -> TeacherBatch:
        return online.batch(collate(split.tokens, rows, split.pad_id, True).to(device))

    return teacher


def _saver(
    backbone: Any, folder: Path, stage: TeacherStage | StudentStage
) -> Callable[[Path, dict[str, Tensor]], None]:
    """Writes weights with all that is needed to use them: tokenizer and settings."""
    tokenizer = load_tokenizer(folder, "model")

    def save(model: Path, state: dict[str, Tensor]) -> None:
        backbone.save(model, state)
        tokenizer.save_pretrained(model)
        settings = {
            "rationale": isinstance(stage, TeacherStage),
            "bottleneck": stage.bottleneck if isinstance(stage, TeacherStage) else True,
            "max_tokens": stage.max_tokens,
        }
        write_json(model / MODEL_SETTINGS, settings)

    return save
