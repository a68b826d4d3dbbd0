"""The stages of a run, each made from what the store has and published into it."""

import gc
from collections.abc import Sequence
from pathlib import Path

from filelock import Timeout

from knife.config import Scale
from knife.store import Store, disk_faults
from knife.train.context import Context, share, wait
from knife.train.place import Place
from knife.train.predictions import evaluate_model
from knife.train.quiet import quiet
from knife.train.stage import EvaluateStage, Stage, StatesStage, StudentStage, TeacherStage
from knife.train.states import compute_states
from knife.train.training import train_student, train_teacher


def run_stages(stages: Sequence[Stage], root: Path, scale: Scale, context: Context) -> None:
    """Make every stage that the store lacks, in order; all workers call it together."""
    quiet()
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
        # DeepSpeed's engines are full of cycles: left to themselves, weights and optimizer states
        # of the stage before would lie beside those of this one.
        gc.collect()
        place = Place(store, store.work(stage.kind, stage.key), scale, context)
        match stage:
            case TeacherStage():
                train_teacher(stage, place)
            case StudentStage():
                train_student(stage, place)
            case StatesStage():
                compute_states(stage, place)
            case EvaluateStage():
                evaluate_model(stage, place)
        wait()
        context.rest()
        if context.rank == 0:
            store.publish(stage.kind, stage.key, stage.depends)
        wait()
    finally:
        lock.release()
