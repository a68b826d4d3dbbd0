"""The stages that train: teacher and student."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from knife.config.methods import EXPLAINS_AT_TEST
from knife.core.errors import raise_errors
from knife.data.batches import Batch, Rows, collate
from knife.data.demonstrations import Demonstrations
from knife.data.forms import longest_rationale, training_tokens
from knife.data.internalize import Removal
from knife.data.several import Drawn
from knife.data.token_table import longest_choice, picked, with_rationale
from knife.data.tokens import Tokens
from knife.method.objective import Alignment, Objective, TeacherBatch
from knife.method.states import OnlineTeacher, StoredStates, Summary
from knife.models.load import load_backbone
from knife.models.lora import add_adapters, merged
from knife.models.tokenizer import load_tokenizer
from knife.plan.stage import StudentStage, TeacherStage
from knife.train.loop import Job, train
from knife.train.model_settings import ModelSettings
from knife.train.prompting import keep_untrained, student_demonstrations
from knife.train.scaled import scaled
from knife.train.stage_context import StageContext, load_published

TeacherSource = Callable[[Rows, Batch], TeacherBatch]


def train_teacher(stage: TeacherStage, stage_context: StageContext) -> None:
    """Finetune the teacher on task input and rationale, with or without the bottleneck."""
    folder = stage.model.local()
    torch.manual_seed(stage.seed)
    backbone = load_backbone(folder, bottleneck=stage.bottleneck, seed=stage.seed)
    if stage.training.lora:
        add_adapters(backbone, stage.training.lora, stage.seed)
    train_split = stage_context.split(stage, folder, "train")
    dev_split = stage_context.split(stage, folder, "dev")
    # The teacher's task is to read rationales; examples without one would teach it to guess.
    rows = with_rationale(train_split.tokens)
    explained = train_split.take(rows)
    tables, counts = stage_context.several(stage)
    several = [picked(table, rows) for table in tables]
    asked = with_rationale(dev_split.tokens)
    dev_split = dev_split.take(asked) if asked else dev_split
    settings = ModelSettings(
        rationale=True,
        bottleneck=stage.bottleneck,
        max_tokens=stage.max_tokens,
        method="teacher",
        open=train_split.tokens[0].open,
        answer_tokens=longest_choice(train_split.tokens),
    )
    drawn = Drawn(several, counts[rows], stage.seed) if several[1:] else None
    job = Job(
        train=drawn or explained.tokens,
        begin=drawn.draw if drawn else None,
        ids=explained.ids,
        dev=dev_split.tokens,
        dev_ids=dev_split.ids,
        pad_id=train_split.pad_id,
        rationale=True,
        asking=settings.asking(train_split.tokenizer, rationale=True, test=False),
        teacher=None,
        save=_saver(backbone, folder, settings),
        training=stage.training,
        scale=stage_context.scale,
        seed=stage.seed,
    )
    scaled(backbone, stage_context.scale)
    train(
        Objective(backbone),
        job,
        stage_context.work,
        stage_context.context,
        stage_context.mirror(stage),
    )


def train_student(stage: StudentStage, stage_context: StageContext) -> None:
    """Train a student by its method; its model never contains any part of the teacher."""
    folder = stage.model.local()
    if stage.method == "teacher_init":
        assert stage.teacher is not None
        folder = stage_context.model("teacher", stage.teacher)
    torch.manual_seed(stage.seed)
    # Only rationale_input reads rationales, with no bottleneck to restrict it.
    backbone = load_backbone(folder, bottleneck=stage.method != "rationale_input", seed=stage.seed)
    if stage.training.lora and stage.method != "prompt":
        add_adapters(backbone, stage.training.lora, stage.seed)
    objective, teacher = Objective(backbone, rationale_weight=stage.rationale_weight), None
    if stage.method == "knife":
        alignment, teacher = _aligned(stage, stage_context)
        objective = Objective(backbone, alignment)
    train_split = stage_context.split(stage, folder, "train")
    demonstrations = student_demonstrations(stage, train_split.examples)
    train_split = train_split.behind(demonstrations, stage.demonstration_tokens)
    dev_split = stage_context.split(stage, folder, "dev").behind(
        demonstrations, stage.demonstration_tokens
    )
    removal = None
    if stage.internalize:
        longest = longest_rationale(train_split.tokens)
        removal = Removal.of(stage.internalize, longest, stage.training.epochs)
    tokens, explanations = training_tokens(
        stage.method, train_split.tokens, train_split.tokenizer, removal
    )
    settings = ModelSettings(
        rationale=False,
        bottleneck=backbone.bottleneck,
        max_tokens=stage.max_tokens,
        method=stage.method,
        open=train_split.tokens[0].open,
        answer_tokens=longest_choice(tokens),
        preamble_tokens=stage.demonstration_tokens,
        rationale_tokens=_written_at_test(stage, train_split.tokens),
    )
    save = _saver(backbone, folder, settings, demonstrations)
    asking = settings.asking(train_split.tokenizer, rationale=False, test=False)
    if stage.method == "prompt":
        keep_untrained(objective, dev_split, asking, save, stage_context)
        return
    job = Job(
        train=tokens,
        ids=train_split.ids,
        dev=dev_split.tokens,
        dev_ids=dev_split.ids,
        pad_id=train_split.pad_id,
        rationale=stage.method == "rationale_input",
        asking=asking,
        explanations=explanations,
        begin=removal.begin if removal else None,
        anew=removal.anew if removal else None,
        teacher=teacher,
        save=save,
        evaluated=partial(stage_context.context.evaluated, stage),
        training=stage.training,
        scale=stage_context.scale,
        seed=stage.seed,
    )
    scaled(backbone, stage_context.scale)
    train(objective, job, stage_context.work, stage_context.context, stage_context.mirror(stage))


def _written_at_test(stage: StudentStage, train: Sequence[Tokens]) -> int:
    """Return the most tokens of a rationale that a student writes after its answer or apart."""
    explains = stage.method in EXPLAINS_AT_TEST
    return longest_rationale(train) if explains else 0


def _aligned(stage: StudentStage, stage_context: StageContext) -> tuple[Alignment, TeacherSource]:
    """Return a student's alignment, and what returns the teacher's states for a batch: the stored
    ones, or the frozen teacher, kept outside the student's module and so out of its state dict."""
    assert stage.align is not None
    folders = {part: stage_context.store.path("states", key) for part, key in stage.states.items()}
    known = {part: Summary.read(folder) for part, folder in folders.items()}
    layers = {part: summary for part, summary in known.items() if isinstance(part, int)}
    variance = {layer: summary.variance for layer, summary in layers.items()}
    refuse_equal_states(stage, variance)
    if stage.align.states == "stored":
        width = next((summary.width for summary in layers.values()), None)
        output_width = known["output"].width if "output" in known else None
        states = StoredStates(folders)
        alignment = Alignment(stage.align, stage.layers, width, output_width, variance)
        if stage.teacher_tokens == stage.tokens:
            return alignment, lambda _, batch: states.batch(batch)
        tokens = stage_context.tokens(stage.teacher_tokens, "train")

        def stored(rows: Rows, batch: Batch) -> TeacherBatch:
            # What pads the teacher's tokens is not read.
            own = collate(tokens, rows, 0, False)
            return states.batch(own.to(batch.row_B.device))

        return alignment, stored
    assert stage.teacher is not None
    folder, device = stage_context.model("teacher", stage.teacher), stage_context.context.device
    split = stage_context.split(stage, folder, "train", tokens=stage.teacher_tokens)
    backbone = load_published(folder).to(device)
    online = OnlineTeacher(backbone, sorted({teacher for _, teacher in stage.layers}))
    widths = (backbone.width, backbone.output_width)

    def teacher(rows: Rows, _: Batch) -> TeacherBatch:
        return online.batch(collate(split.tokens, rows, split.pad_id, True).to(device))

    return Alignment(stage.align, stage.layers, *widths, variance), teacher


def refuse_equal_states(stage: StudentStage, variance: Mapping[int, float]) -> None:
    """Refuse to divide by the variance of states that are all equal.

    Raises:
        UserError: the distance is `scaled_mse` and a layer of the teacher has no variance.
    """
    assert stage.align is not None
    if not stage.align.input.weight or stage.align.input.distance != "scaled_mse":
        return
    raise_errors(
        f"align.input.distance: the teacher's states of layer {layer} are all equal, so "
        "scaled_mse cannot divide by their variance; train the teacher with a lower "
        "teacher.learning_rate, or choose another layer (align.input.layers) or distance (mse)"
        for layer in dict.fromkeys(teacher for _, teacher in stage.layers)
        if not 0 < variance[layer] < math.inf
    )


def _saver(
    backbone: Any,
    folder: Path,
    settings: ModelSettings,
    demonstrations: Demonstrations | None = None,
) -> Callable[[Path, dict[str, Tensor]], None]:
    """Return a function that writes weights with tokenizer, settings and demonstrations."""
    tokenizer = load_tokenizer(folder, "model")

    def save(model: Path, state: dict[str, Tensor]) -> None:
        backbone.save(model, merged(backbone, state))
        tokenizer.save_pretrained(model)
        settings.write(model)
        if demonstrations:
            demonstrations.save(model)

    return save
