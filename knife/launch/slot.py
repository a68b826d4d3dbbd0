"""A slot: a worker group of Ray Train that makes one stage after another."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from filelock import Timeout

from knife.cluster.capacity import resources
from knife.compat.ray import trainer_in_this_actor, worker_was_killed
from knife.config.scale import Scale
from knife.core.errors import (
    NotFiniteError,
    TrainingDivergedError,
    TrainingPrunedError,
    UserError,
)
from knife.core.exits import Terminated
from knife.plan.stage import Stage
from knife.store.store import Store

# How long a worker group may wait for its resources. A cluster that scales up on demand, or is
# busy with another run, provides them after minutes. An elastic group takes what is available
# instead, by a count that Ray updates every 20 s.
_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_HEALTH_TIMEOUT = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
# How often an elastic group looks for new hosts; growing costs a restart.
_RESIZE_SECONDS = 30.0
# How long rank 0 waits for work before it lets the other ranks know that it still does.
_TURN_SECONDS = 2.0

# Errors that a restart would only repeat, by name.
NOTED: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (UserError, NotFiniteError, TrainingDivergedError)
}

# An answer to the question for more work: there will not be any.
CLOSED = "closed"
# By which a worker group ended whose processes were killed, instead of an error's name.
KILLED = "killed"
# The name and lines of the error by which a worker group ended; None if it was closed.
Ended = tuple[str, list[str]] | None

# A lost worker or host is worth a restart; an error in our own would repeat every time. More
# failures in a row than this, without progress, at least a checkpoint, end a stage.
MOST_FAILURES = 3


@dataclass(frozen=True)
class Slot:
    """What every worker of a slot gets.

    Attributes:
        number: its number, from 0.
        start: the number of this worker group among all that were started.
        groups: the name of the actor that has its work.
        address: the store's folder or url.
        name: of the worker group; the driver requests a stop by it.
        mark: a file that shows whether the store's folder is the same on every host.
        cpus: CPUs of each worker.
        judged: whether the driver decides after each evaluation if a training goes on.
    """

    number: int
    start: int
    groups: str
    address: str
    scale: Scale
    name: str
    mark: Path | None
    cpus: float
    judged: bool


def fit(slot: Slot, store: Store) -> Ended:
    """Run a slot's worker group until the slot is closed, and return why it has ended before.

    Must be called in an actor, and may be in any thread.
    """
    from ray.train.v2.api.exceptions import TrainingFailedError

    folder = store.root / "work"
    try:
        if slot.mark:
            slot.mark.touch()
        with store.lock("work", slot.name):
            errors: list[str] = _trainer(slot, folder).fit().return_value
        return ("UserError", errors) if errors else None
    except TrainingFailedError as error:
        rank, cause = first_failure(error)
        if isinstance(cause, UserError):
            return "UserError", cause.errors
        if worker_was_killed(cause):
            return KILLED, [f"worker {rank} was killed"]
        where = "" if rank is None else f"worker {rank} failed: "
        return "RuntimeError", [f"{where}{str(cause).strip() or type(cause).__name__}"]
    except Exception as error:
        return "RuntimeError", [f"{type(error).__name__}: {error}"]
    finally:
        shutil.rmtree(folder / slot.name, ignore_errors=True)
        if slot.mark:
            slot.mark.unlink(missing_ok=True)


def _trainer(slot: Slot, folder: Path) -> Any:
    """Return the trainer whose `fit` runs the slot's worker group, with its files in a folder."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from knife.launch.hosts import HostsTorchConfig

    scale, gpu = slot.scale, slot.scale.gpus_per_worker > 0
    return trainer_in_this_actor()(
        _worker,
        train_loop_config={"slot": slot},
        torch_config=HostsTorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(
                (scale.min_workers, scale.workers) if scale.min_workers else scale.workers
            ),
            elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
            placement_strategy=scale.placement.upper(),
            use_gpu=gpu,
            resources_per_worker=resources(slot.cpus, scale.gpus_per_worker),
        ),
        run_config=RunConfig(
            name=slot.name,
            storage_path=str(folder),
            # After a loss, the driver decides which worker group continues: this one may have to
            # wait for resources that others have and do not need.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=MOST_FAILURES),
            worker_runtime_env={"env_vars": _worker_environment(slot.cpus, gpu)},
        ),
    )


def timeouts(scale: Scale) -> dict[str, str]:
    """Return how long Ray Train waits for workers, as variables. A start limit set by the user is
    kept."""
    return {
        _START_TIMEOUT: os.environ.get(_START_TIMEOUT, "30" if scale.min_workers else "600"),
        # For a worker that does not respond, whatever it is doing.
        _HEALTH_TIMEOUT: str(scale.hang_seconds),
    }


def _worker_environment(cpus: float, gpu: bool) -> dict[str, str]:
    # Threads that spin while waiting slow down a busy machine several times over.
    environment = {"OMP_NUM_THREADS": str(max(1, int(cpus))), "OMP_WAIT_POLICY": "PASSIVE"}
    # What the user has set is kept.
    names = (*environment, "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    environment |= {name: os.environ[name] for name in names if name in os.environ}
    environment["TOKENIZERS_PARALLELISM"] = "false"
    return environment if gpu else environment | {"DS_ACCELERATOR": "cpu"}


def _worker(config: dict[str, Any]) -> list[str]:
    """Make the stages that the slot is given, in each worker, until it is closed.

    Returns errors that all workers found together.
    """
    from ray.train import get_context

    slot: Slot = config["slot"]
    groups = ray.get_actor(slot.groups)
    if get_context().get_world_rank() == 0:
        ray.get(groups.ready.remote(slot.number, slot.start))
    # Imported here: the driver and Ray's own actors import this module and need none of it.
    from knife.launch.context import RayContext, stop_was_requested
    from knife.launch.hosts import store_errors_of_hosts
    from knife.train.context import broadcast
    from knife.train.stages import settled

    def asks(number: int, epoch: int, metrics: dict[str, float]) -> bool:
        return bool(ray.get(groups.ask.remote(slot.number, number, (epoch, metrics))))

    if slot.mark and (errors := store_errors_of_hosts(slot.mark)):
        return errors
    context = RayContext(slot.name, slot.scale.hang_seconds)
    with settled():
        while True:
            context.pause_heartbeat()
            number, stages = broadcast(_next(slot, groups) if context.rank == 0 else None)
            if stages == CLOSED:
                return []
            if not stages:
                continue
            if slot.judged:
                context.goes_on = partial(asks, number)
            try:
                _make(stages, slot, context, partial(groups.post.remote, slot.number, number))
            except Terminated as error:
                if stop_was_requested(slot.name):
                    return []
                # A worker's host is going away: Ray continues with others.
                raise RuntimeError("a worker received SIGTERM") from error


def _next(slot: Slot, groups: Any) -> tuple[int, Any]:
    """Return the stages that a slot is given, or `CLOSED`; none if it takes long."""
    found = ray.get(groups.take.remote(slot.number, _TURN_SECONDS))
    if found is None:
        return 0, None
    number, work = found
    return number, work if work == CLOSED else ray.get(work[0])


def _make(stages: Sequence[Stage], slot: Slot, context: Any, tell: Callable[..., Any]) -> None:
    """Make stages, and tell the driver how that ended, unless by the loss of a worker."""
    from knife.train.context import barrier
    from knife.train.stages import drop_unfinished, make_stages

    if context.rank == 0:
        ray.get(tell("begun"))
    started = time.monotonic()
    try:
        make_stages(stages, slot.address, slot.scale, context)
    except TrainingPrunedError:
        drop_unfinished(Store(slot.address), stages[0])
        barrier()
        if context.rank == 0:
            ray.get(tell("pruned"))
    except tuple(NOTED.values()) as error:
        lines = error.errors if isinstance(error, UserError) else [str(error)]
        ray.get(tell("failed", (type(error).__name__, lines)))
        # Alone, a worker is as good as new. Others may still wait for one that has failed.
        if context.world_size > 1 or context.device.type == "cuda":
            raise
    else:
        if context.rank == 0:
            ray.get(tell("made", time.monotonic() - started))


def first_failure(error: BaseException) -> tuple[int | None, BaseException]:
    """Return rank and error in the failed worker of lowest rank, unwrapped from Ray's errors."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    if not failures:
        return None, error
    rank, failure = min(failures.items())
    return rank, getattr(failure, "_base_exc", failure)


def sweep(store: Store) -> None:
    """Remove Ray's folders left behind by killed drivers."""
    for path in (store.root / "work").glob("ray-*"):
        with suppress(Timeout), store.lock("work", path.name.split(".")[0]).acquire(timeout=0):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
