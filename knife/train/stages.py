"""The stages of a run, each made from what is in the store and published to it."""

import gc
from collections.abc import Sequence
from pathlib import Path

from filelock import Timeout

from knife.config.run import Scale
from knife.models.quiet import quiet
from knife.plan.stage import EvaluateStage, Stage, StatesStage, StudentStage, TeacherStage
from knife.store.disk import disk_errors
from knife.store.store import Store, new_attempt, store_root
from knife.train.context import Context, barrier, broadcast, gather
from knife.train.finite import in_stage
from knife.train.mirror import host_leaders, mirrored_journal
from knife.train.predictions import evaluate_model
from knife.train.stage_context import StageContext
from knife.train.states import compute_states
from knife.train.training import train_student, train_teacher


def run_stages(
    stages: Sequence[Stage], address: Path | str, scale: Scale, context: Context
) -> None:
    """Make every stage that the store at a folder or url lacks, in order; all workers must call
    it.

    Raises:
        NotFiniteError: numbers of a stage are NaN or infinite; the stage is not published.
    """
    quiet()
    with disk_errors(store_root(address)):
        store = Store(address)
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
            # Short waits: the other ranks' collectives would time out during a long wait.
            if broadcast(held):
                break
        if broadcast(context.rank == 0 and store.has(stage.kind, stage.key)):
            return
        # DeepSpeed's engines are full of reference cycles: without this, weights and optimizer
        # states of the previous stage would stay in memory beside those of this one.
        gc.collect()
        stage_context = StageContext(store, store.work(stage.kind, stage.key), scale, context)
        with mirrored_journal(store, stage.kind, stage.key, context), in_stage(stage.label):
            match stage:
                case TeacherStage():
                    train_teacher(stage, stage_context)
                case StudentStage():
                    train_student(stage, stage_context)
                case StatesStage():
                    compute_states(stage, stage_context)
                case EvaluateStage():
                    evaluate_model(stage, stage_context)
        barrier()
        context.pause_heartbeat()
        _publish(stage, store, context)
        barrier()
    finally:
        lock.release()


def _publish(stage: Stage, store: Store, context: Context) -> None:
    kind, key = stage.kind, stage.key
    if store.shared:
        if context.rank == 0:
            store.publish(kind, key, stage.depends)
        return
    # Every host has made a part; a file that several have is uploaded by the first.
    if context.rank == 0:
        store.describe(kind, key, stage.depends)
    leads = host_leaders(store.work(kind, key))[context.rank] == context.rank
    everybody = gather(store.made(kind, key) if leads else [])
    earlier = {name for names in everybody[: context.rank] for name in names}
    own = [name for name in everybody[context.rank] if name not in earlier]
    attempt = broadcast(new_attempt())
    uploaded = gather(store.upload(kind, key, attempt, own))
    files = {name: of for part in uploaded for name, of in part.items()}
    if context.rank == 0:
        store.conclude(kind, key, attempt, files)
    barrier()
    if leads:
        store.hand_over(kind, key, files if len(own) == len(files) else None)
