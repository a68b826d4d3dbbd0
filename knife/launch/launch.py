"""Launch of stages with Ray Train: one worker group for all stages of a run."""

import os
import shutil
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout

from knife.cluster.address import cluster_address
from knife.cluster.capacity import capacity_errors, session_errors
from knife.config.run import Scale
from knife.core.environment import variables
from knife.core.errors import NotFiniteError, TrainingDivergedError, UserError, raise_errors
from knife.core.exits import Terminated
from knife.launch.session import in_thread, session
from knife.plan.stage import Stage
from knife.store.store import Store

# How long a worker group may wait for its resources. A cluster that scales up on demand, or is
# busy with another run, provides them after minutes. An elastic group takes what is available
# instead, by a count that Ray updates every 20 s.
_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_HEALTH_TIMEOUT = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"
# How often an elastic group looks for new hosts; growing costs a restart.
_RESIZE_SECONDS = 30.0

# Errors that a restart would only repeat, by name.
_NOTED: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (UserError, NotFiniteError, TrainingDivergedError)
}

# A lost worker or host is worth a restart; an error in our own would repeat every time. More
# failures in a row than this, without progress, at least a checkpoint, end the run.
_MAX_FAILURES = 3
# How long workers have for their checkpoint after a stop request.
_CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class _Work:
    """What every worker gets."""

    stages: tuple[Stage, ...]
    address: str
    scale: Scale
    name: str
    mark: Path | None


def launch(
    stages: Sequence[Stage],
    address: Path | str,
    scale: Scale,
    *,
    cpus_per_worker: float | None = None,
    links: list[str] | None = None,
) -> None:
    """Make stages on Ray workers, in the running Ray session or a new one, for the store at a
    folder or a url.

    Lost workers or hosts are replaced, and the work resumes from the last checkpoint. Each worker
    gets `cpus_per_worker`; None is its share of this machine. A line with the session's dashboard
    is appended to `links`.

    Raises:
        UserError: more workers than the cluster has room for, or a user error in a worker.
        RuntimeError: a worker failed again and again; the message ends with its error.
        SessionLostError: one of Ray's own processes on this machine has died.
    """
    raise_errors(session_errors(scale))
    with session(scale.workers * scale.gpus_per_worker) as found:
        import ray

        if links is not None:
            links += found
        raise_errors(capacity_errors(scale, ray.cluster_resources(), "the cluster"))
        if cpus_per_worker is None:
            cpus_per_worker = max(1, int(ray.cluster_resources()["CPU"]) // scale.workers)
            if cluster_address():
                cpus_per_worker = 1
        _make(stages, Store(address), scale, cpus_per_worker)


def _make(stages: Sequence[Stage], store: Store, scale: Scale, cpus: float) -> None:
    """Start worker groups as long as each makes progress, at least a checkpoint."""
    _sweep(store)
    while True:
        before = _done(store, stages)
        # The name of Ray's own folder; the lock shows that it is still in use.
        name = f"ray-{uuid.uuid4().hex[:12]}"
        try:
            with store.lock("work", name):
                _fit(stages, store, scale, cpus, name)
            return
        except NotFiniteError:
            raise
        except RuntimeError:
            if _done(store, stages) <= before:
                raise


def _done(store: Store, stages: Sequence[Stage]) -> set[str]:
    """Return what need not be made again: stages, and checkpoints and shards of unfinished ones."""
    done = {key for _, key in store.have(stages)}
    return done.union(*(store.begun(stage.kind, stage.key) for stage in stages))


def _sweep(store: Store) -> None:
    """Remove Ray's folders left behind by killed drivers."""
    for path in (store.root / "work").glob("ray-*"):
        with suppress(Timeout), store.lock("work", path.name.split(".")[0]).acquire(timeout=0):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _fit(stages: Sequence[Stage], store: Store, scale: Scale, cpus: float, name: str) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    from knife.launch.context import request_stop
    from knife.launch.hosts import HostsTorchConfig

    # Shows whether the store's folder is the same on every host.
    mark = store.root / "work" / f"{name}.mark" if store.shared else None
    if mark:
        mark.touch()
    gpu = scale.gpus_per_worker > 0
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"work": _Work(tuple(stages), store.address, scale, name, mark)},
        torch_config=HostsTorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(
                (scale.min_workers, scale.workers) if scale.min_workers else scale.workers
            ),
            elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
            placement_strategy=scale.placement.upper(),
            use_gpu=gpu,
            resources_per_worker=resources(cpus, scale.gpus_per_worker),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(store.root / "work"),
            failure_config=FailureConfig(
                max_failures=_MAX_FAILURES, controller_failure_limit=_MAX_FAILURES
            ),
            worker_runtime_env={"env_vars": _worker_environment(cpus, gpu)},
        ),
    )
    with timeouts(scale):
        done = in_thread(trainer.fit)
        try:
            raise_errors(done.result().return_value)
        except Terminated:
            request_stop(name)
            with suppress(Exception):
                done.result(_CHECKPOINT_SECONDS)
            raise
        except TrainingFailedError as error:
            rank, cause = _first_failure(error)
            if isinstance(cause, UserError):
                raise cause from error
            words = str(cause).strip() or type(cause).__name__
            raise RuntimeError(
                f"worker {rank} failed: {words}" if rank is not None else words
            ) from error
        finally:
            shutil.rmtree(store.root / "work" / name, ignore_errors=True)
            if mark:
                mark.unlink(missing_ok=True)
    if note := store.noted(_note_name(name)):
        store.forget(_note_name(name))
        raise _NOTED[note["error"]](*note["lines"])


def timeouts(scale: Scale) -> AbstractContextManager[None]:
    """Set how long Ray Train waits for workers, for one run only: the process may make others.

    Ray Train reads both limits from the environment. A start limit set by the user is kept.
    """
    return variables(
        {
            _START_TIMEOUT: os.environ.get(_START_TIMEOUT, "30" if scale.min_workers else "600"),
            # For a worker that does not respond, whatever it is doing.
            _HEALTH_TIMEOUT: str(scale.hang_seconds),
        }
    )


def resources(cpus: float, gpus: float) -> dict[str, float]:
    """Return the resources of one worker, in Ray's terms."""
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def _worker_environment(cpus: float, gpu: bool) -> dict[str, str]:
    # Threads that spin while waiting slow down a busy machine several times over.
    environment = {"OMP_NUM_THREADS": str(max(1, int(cpus))), "OMP_WAIT_POLICY": "PASSIVE"}
    # What the user has set is kept.
    names = (*environment, "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    environment |= {name: os.environ[name] for name in names if name in os.environ}
    environment["TOKENIZERS_PARALLELISM"] = "false"
    return environment if gpu else environment | {"DS_ACCELERATOR": "cpu"}


def _worker(config: dict[str, Any]) -> list[str]:
    """Make the stages in each worker; return errors that all workers found together.

    An error that would repeat every time is noted in the store before it is raised: replacement
    workers started by Ray find the note and end, and the launcher reads it.
    """
    # Imported here: the driver and Ray's own actors import this module and need none of it.
    from knife.launch.context import RayContext, stop_was_requested
    from knife.launch.hosts import store_errors_of_hosts
    from knife.train.stages import run_stages

    work: _Work = config["work"]
    store = Store(work.address, write=False)
    if store.noted(_note_name(work.name)):
        return []
    if work.mark and (errors := store_errors_of_hosts(work.mark)):
        return errors
    try:
        context = RayContext(work.name, work.scale.hang_seconds)
        run_stages(work.stages, work.address, work.scale, context)
    except Terminated as error:
        if not stop_was_requested(work.name):
            # A worker's host is going away: Ray continues with others.
            raise RuntimeError("a worker received SIGTERM") from error
    except tuple(_NOTED.values()) as error:
        lines = error.errors if isinstance(error, UserError) else [str(error)]
        # On a full disk there is no note, and the new workers hit the same error.
        with suppress(OSError):
            store.note(_note_name(work.name), {"error": type(error).__name__, "lines": lines})
        raise
    return []


def _note_name(name: str) -> str:
    return f"{name}.faults.json"


def _first_failure(error: BaseException) -> tuple[int | None, BaseException]:
    """Return rank and error in the failed worker of lowest rank, unwrapped from Ray's errors."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    if not failures:
        return None, error
    rank, failure = min(failures.items())
    return rank, getattr(failure, "_base_exc", failure)
