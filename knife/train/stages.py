"""The stages of a run, each made from what is in the store and published to it."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from knife.config.scale import Scale
from knife.models.quiet import quiet
from knife.plan.stage import (
    EvaluateStage,
    Stage,
    StatesStage,
    StudentStage,
    TeacherStage,
)
from knife.store.bucket import new_attempt
from knife.store.disk import disk_errors
from knife.store.store import Store, store_root
from knife.train.context import Context, barrier, broadcast, gather
from knife.train.finite import in_stage
from knife.train.mirror import host_leaders, mirrored_journal
from knife.train.predictions import evaluate_model
from knife.train.stage_context import StageContext
from knife.train.states import compute_states
from knife.train.training import train_student, train_teacher


@contextmanager
def settled() -> Iterator[None]:
    """Prepare this process to make stages inside."""
    quiet()
    # The collection before each stage then looks at what the stages made, and not each time at the
    # million objects of the imported libraries.
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def make_stages(
    stages: Sequence[Stage], address: Path | str, scale: Scale, context: Context
) -> None:
    """Make those of a group's stages that the store lacks, under the locks of all of them; all
    workers must call it.

    Raises:
        NotFiniteError: numbers of a stage are NaN or infinite; the stage is not published.
    """
    with disk_errors(store_root(address)):
        _run(stages, Store(address), scale, context)


def drop_unfinished(store: Store, stage: Stage) -> None:
    """Remove the files of a training that was ended early, unless another process holds its
    lock."""
    folder = store.root / "work" / f"{stage.kind}-{stage.key}"
    if folder.is_dir():
        with suppress(Timeout), store.lock(stage.kind, stage.key).acquire(timeout=0):
            store.drop_work(stage.kind, stage.key)


def _run(stages: Sequence[Stage], store: Store, scale: Scale, context: Context) -> None:
    """Make them while holding their locks, unless another process has made them meanwhile."""
    # In the same order everywhere: two processes never wait for each other.
    locks = [store.lock(stage.kind, stage.key) for stage in sorted(stages, key=lambda s: s.key)]
    try:
        # Short waits: the other ranks' collectives would time out during a long wait.
        while not broadcast(context.rank == 0 and all(map(_acquired, locks))):
            pass
        there = [store.has(stage.kind, stage.key) for stage in stages] if context.rank == 0 else []
        there = broadcast(there)
        missing = [stage for stage, done in zip(stages, there, strict=True) if not done]
        if missing:
            _make(missing, store, scale, context)
    finally:
        for lock in locks:
            lock.release()


def _acquired(lock: FileLock) -> bool:
    """Whether the lock is held, after at most two seconds of waiting for it."""
    if not lock.is_locked:
        try:
            lock.acquire(timeout=2)
        except Timeout:
            return False
    return True


def _make(stages: Sequence[Stage], store: Store, scale: Scale, context: Context) -> None:
    # DeepSpeed's engines are full of reference cycles: without this, weights and optimizer
    # states of the previous stage would stay in memory beside those of this one.
    gc.collect()
    places = [StageContext(store, store.work(s.kind, s.key), scale, context) for s in stages]
    with ExitStack() as journals:
        for stage in stages:
            journals.enter_context(mirrored_journal(store, stage.kind, stage.key, context))
        stage, stage_context = stages[0], places[0]
        match stage:
            case TeacherStage():
                with in_stage(stage.label):
                    train_teacher(stage, stage_context)
            case StudentStage():
                with in_stage(stage.label):
                    train_student(stage, stage_context)
            case StatesStage():
                compute_states([s for s in stages if isinstance(s, StatesStage)], places)
            case EvaluateStage():
                with in_stage(stage.label):
                    evaluate_model(stage, stage_context)
    barrier()
    context.pause_heartbeat()
    for stage in stages:
        _publish(stage, store, context)
    barrier()


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
