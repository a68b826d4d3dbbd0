"""The stages of a run, each made from what the store has and published into it.

A stage says what its result depends on (its key is the fingerprint of that) and how to make it.
"""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from filelock import Timeout

from knife.config import Align, Method, Scale, Training
from knife.data.batches import Batch, Rows, collate, evaluation_rows
from knife.data.jsonl import read_examples
from knife.data.tokens import Tokens, tokenize
from knife.method.backbone import load_backbone, load_tokenizer
from knife.method.model_source import ModelSource
from knife.method.objective import Alignment, Objective, TeacherBatch
from knife.method.states import (
    SHARD_BYTES,
    Moments,
    OnlineTeacher,
    StoredStates,
    Summary,
    example_states,
    write_shard,
)
from knife.store import Store, disk_faults
from knife.train.context import Context, gather, share, wait
from knife.train.evaluate import accuracy_and_loss, predictions, score_split
from knife.train.checkpoint import write_json
from knife.train.journal import Journal
from knife.train.loop import TRAINED, Job, train

PREDICTIONS = "predictions.jsonl"
MODEL_SETTINGS = "knife.json"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One resumable step.

    Attributes:
        key: fingerprint of `depends`.
        depends: all that the result hangs on, JSON-ready.
        label: words for a progress display.
        data: key of the data that it reads.
        max_tokens: bound on task input and rationale together.
    """

    kind: ClassVar[str]
    key: str
    depends: dict[str, Any]
    label: str
    data: str
    max_tokens: int


@dataclass(frozen=True, kw_only=True)
class TeacherStage(Stage):
    """Finetune the teacher on task input and rationale."""

    kind: ClassVar[str] = "teacher"
    model: ModelSource
    training: Training
    bottleneck: bool
    seed: int


@dataclass(frozen=True, kw_only=True)
class StatesStage(Stage):
    """Compute the frozen teacher's states of every training example, or their variance alone."""

    kind: ClassVar[str] = "states"
    teacher: str
    layers: tuple[int, ...]
    outputs: bool
    precision: Any
    stored: bool


@dataclass(frozen=True, kw_only=True)
class StudentStage(Stage):
    """Train a student by one method and seed.

    Attributes:
        teacher: key of the teacher, for `teacher_init` and `knife`.
        states: key of the teacher states, for `knife`, with settings and layer map.
    """

    kind: ClassVar[str] = "student"
    method: Method
    model: ModelSource
    training: Training
    seed: int
    teacher: str | None = None
    states: str | None = None
    align: Align | None = None
    layers: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class EvaluateStage(Stage):
    """Predictions of a teacher or a student on the test split."""

    kind: ClassVar[str] = "evaluate"
    model_kind: str
    model_key: str
    rationale: bool


def run_stages(stages: Sequence[Stage], root: Path, scale: Scale, context: Context) -> None:
    """Make every stage that the store lacks, in order; all workers call it together."""
    _quiet()
    with disk_faults(root):
        store = Store(root)
        for stage in stages:
            _run(stage, store, scale, context)
            context.report(stage.kind, {"key": stage.key})


def _run(stage: Stage, store: Store, scale: Scale, context: Context) -> None:
    lock = store.lock(stage.kind, stage.key)
    try:
        while True:
            held = True
            if context.rank == 0:
                try:
                    lock.acquire(timeout=2)
                except Timeout:
                    held = False
            # Short waits: the other ranks' collectives would time out during a long one.
            if share(held):
                break
        if share(store.has(stage.kind, stage.key)):
            return
        make = {
            "teacher": _teacher,
            "states": _states,
            "student": _student,
            "evaluate": _evaluate,
        }[stage.kind]
        work = store.work(stage.kind, stage.key)
        make(stage, store, work, scale, context)  # type: ignore[operator]
        wait()
        if context.rank == 0:
            store.publish(stage.kind, stage.key, stage.depends)
        wait()
    finally:
        lock.release()


def _teacher(
    stage: TeacherStage, store: Store, work: Path, scale: Scale, context: Context
) -> None:
    folder = stage.model.local()
    settings = {"bottleneck": stage.bottleneck, "rationale": True}
    torch.manual_seed(stage.seed)
    backbone = load_backbone(folder, bottleneck=stage.bottleneck, seed=stage.seed)
    _train(stage, Objective(backbone), folder, settings, None, store, work, scale, context)


def _student(
    stage: StudentStage, store: Store, work: Path, scale: Scale, context: Context
) -> None:
    folder = stage.model.local()
    if stage.method == "teacher_init":
        assert stage.teacher is not None
        folder = store.path("teacher", stage.teacher) / "model"
    torch.manual_seed(stage.seed)
    backbone = load_backbone(folder, seed=stage.seed)
    objective, teacher = Objective(backbone), None
    if stage.method == "knife":
        assert stage.align is not None
        assert stage.states is not None
        states_folder = store.path("states", stage.states)
        summary = Summary.read(states_folder)
        alignment = Alignment(
            stage.align, stage.layers, summary.width, summary.output_width, summary.variance
        )
        objective = Objective(backbone, alignment)
        if summary.stored:
            stored = StoredStates(states_folder)
            teacher = lambda _rows, batch: stored.batch(batch)  # noqa: E731
        else:
            teacher = _online(stage, store, context, summary)
    settings = {"bottleneck": True, "rationale": False}
    _train(stage, objective, folder, settings, teacher, store, work, scale, context)


def _online(stage: StudentStage, store: Store, context: Context, summary: Summary) -> Any:
    """The frozen teacher beside the student: outside its module, so never in its state dict."""
    assert stage.teacher is not None
    folder = store.path("teacher", stage.teacher) / "model"
    tokens, _, pad_id = _split(store, stage, folder, "train")
    online = OnlineTeacher(_load_published(folder).to(context.device), summary.layers)

    def teacher(rows: Rows, batch: Batch) -> TeacherBatch:
        del batch
        return online.batch(collate(tokens, rows, pad_id, True).to(context.device))

    return teacher


def _train(
    stage: TeacherStage | StudentStage,
    objective: Objective,
    folder: Path,
    settings: dict[str, Any],
    teacher: Any,
    store: Store,
    work: Path,
    scale: Scale,
    context: Context,
) -> None:
    train_tokens, _, pad_id = _split(store, stage, folder, "train")
    dev_tokens, _, _ = _split(store, stage, folder, "dev")
    if isinstance(stage, TeacherStage):
        # The teacher is for reading rationales; examples without one would teach it to guess.
        train_tokens = [t for t in train_tokens if t.rationale_ids]
        dev_tokens = [t for t in dev_tokens if t.rationale_ids] or dev_tokens

    def save(model: Path, state: dict[str, torch.Tensor]) -> None:
        objective.backbone.save(model, state)
        load_tokenizer(folder, "model").save_pretrained(model)
        write_json(model / MODEL_SETTINGS, settings | {"max_tokens": stage.max_tokens})

    job = Job(
        train=train_tokens,
        dev=dev_tokens,
        pad_id=pad_id,
        rationale=isinstance(stage, TeacherStage),
        teacher=teacher,
        save=save,
        training=stage.training,
        scale=scale,
        seed=stage.seed,
    )
    train(objective, job, work, context)


def _states(stage: StatesStage, store: Store, work: Path, scale: Scale, context: Context) -> None:
    """Every rank writes shards of its own part; shards of an interrupted try are kept."""
    folder = store.path("teacher", stage.teacher) / "model"
    tokens, _, pad_id = _split(store, stage, folder, "train")
    backbone = _load_published(folder).to(context.device).eval()
    moments, width = Moments(stage.layers), backbone.width
    summary = Summary(
        layers=list(stage.layers),
        width=width,
        output_width=backbone.output_width,
        outputs=stage.outputs,
        precision=stage.precision,
        variance={},
        tokens=0,
        stored=stage.stored,
    )
    journal = Journal(work) if context.rank == 0 else None
    done = 0
    for number, rows in enumerate(_shards(tokens, summary)):
        if number % context.world_size != context.rank:
            continue
        path = work / f"shard-{number:05d}.safetensors"
        own = Moments(stage.layers)
        kept = path.with_suffix(".json")
        if kept.is_file():
            values = json.loads(kept.read_text())
            own.tokens, own.sums_L3 = values["tokens"], torch.tensor(values["sums"]).double()
        else:
            parts = _teacher_parts(backbone, tokens, rows, pad_id, stage.layers, context)
            for part in parts:
                own.add(part["input"])
            if stage.stored:
                write_shard(path, rows, parts, summary)
            write_json(kept, {"tokens": own.tokens, "sums": own.sums_L3.tolist()})
        moments.tokens += own.tokens
        moments.sums_L3 += own.sums_L3
        done += len(rows)
        if journal:
            journal.add(number + 1, (number + 1), {"examples": float(done)})
    everybody = gather((moments.tokens, moments.sums_L3))
    if journal:
        journal.close()
        moments.tokens = sum(t for t, _ in everybody)
        moments.sums_L3 = torch.stack([s for _, s in everybody]).sum(0)
        final = Summary(
            **{**vars(summary), "variance": moments.variance(), "tokens": moments.tokens}
        )
        final.write(work)
        for kept in work.glob("shard-*.json"):
            kept.unlink()


def _shards(tokens: Sequence[Tokens], summary: Summary) -> list[list[int]]:
    """The rows of each shard: in order, about SHARD_BYTES each, the same at any world size."""
    per_token = len(summary.layers) * summary.width * (2 if summary.precision == "bf16" else 4)
    shards: list[list[int]] = [[]]
    size = 0
    for row, example in enumerate(tokens):
        if size > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(row)
        size += len(example.input_ids) * per_token
    return shards


def _teacher_parts(
    backbone: Any,
    tokens: Sequence[Tokens],
    rows: list[int],
    pad_id: int,
    layers: Sequence[int],
    context: Context,
) -> list[dict[str, torch.Tensor]]:
    """The states of some examples, in the order of `rows`."""
    chosen = [tokens[row] for row in rows]
    lengths = [len(t.input_ids) + len(t.rationale_ids) for t in chosen]
    parts: list[dict[str, torch.Tensor]] = [{} for _ in rows]
    with torch.no_grad():
        for batch_rows in evaluation_rows(lengths, 64):
            batch = collate(chosen, batch_rows, pad_id, True).to(context.device)
            output = backbone(batch, layers)
            for place, part in zip(
                batch_rows.rows, example_states(output, layers, batch), strict=True
            ):
                parts[place] = part
    return parts


def _evaluate(
    stage: EvaluateStage, store: Store, work: Path, scale: Scale, context: Context
) -> None:
    del scale
    folder = store.path(stage.model_kind, stage.model_key) / "model"
    tokens, ids, pad_id = _split(store, stage, folder, "test")
    objective = Objective(_load_published(folder)).to(context.device).eval()
    scores = score_split(objective, tokens, pad_id, context, rationale=stage.rationale)
    if context.rank == 0:
        accuracy, loss = accuracy_and_loss(scores, tokens)
        with (work / PREDICTIONS).open("w") as file:
            for row in predictions(ids, tokens, scores):
                file.write(json.dumps(row) + "\n")
        journal = Journal(work)
        journal.add(0, 0.0, {"test_accuracy": accuracy, "test_loss": loss})
        journal.close()


def _load_published(folder: Path) -> Any:
    settings = json.loads((folder / MODEL_SETTINGS).read_text())
    return load_backbone(folder, bottleneck=settings["bottleneck"])


def _split(
    store: Store, stage: Stage, folder: Path, split: str
) -> tuple[list[Tokens], list[str], int]:
    """A split's tokens and example ids, and the padding token."""
    return _tokens(store.path("data", stage.data) / f"{split}.jsonl", folder, stage.max_tokens)


@lru_cache(maxsize=8)
def _tokens(path: Path, folder: Path, max_tokens: int) -> tuple[list[Tokens], list[str], int]:
    examples = read_examples(path)
    tokenizer = load_tokenizer(folder, "model")
    tokens, _ = tokenize(examples, tokenizer, max_tokens)
    return tokens, [e.id for e in examples], tokenizer.pad_token_id or 0


def _quiet() -> None:
    """Libraries' bars and notes of no use in a worker; errors stay."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
