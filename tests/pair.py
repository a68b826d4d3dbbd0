"""Runs without a launcher: in this process, or in two workers on this machine."""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed

from knife.config.run import RunConfig
from knife.config.scale import Scale
from knife.pipeline.run import publish_data
from knife.plan.plan import Plan, plan_run
from knife.plan.stage import Stage, together
from knife.store.store import Store
from knife.train.context import Context, PlainContext
from knife.train.stages import make_stages, settled


class Pair:
    """The context of one of two workers."""

    world_size = 2
    device = torch.device("cpu")

    def __init__(self, rank: int, folder: Path) -> None:
        self.rank = rank
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
        method = f"file://{folder / 'rendezvous'}"
        distributed.init_process_group("gloo", init_method=method, rank=rank, world_size=2)

    def evaluated(self, stage: Stage, epoch: int, metrics: dict[str, float]) -> None:
        """Do nothing."""

    def stop_requested(self) -> bool:
        """Return False: no test requests a stop."""
        return False

    def heartbeat(self) -> None:
        """Do nothing."""

    def pause_heartbeat(self) -> None:
        """Do nothing."""


def run_stages(
    stages: Sequence[Stage], address: Path | str, scale: Scale, context: Context
) -> None:
    """Make every stage that a store lacks, in order; every worker calls it."""
    with settled():
        for group in together(stages):
            make_stages(group, address, scale, context)


def make(config: RunConfig, context: Context) -> Plan:
    """Make all stages of a run, without a record or a report; every worker calls it."""
    if context.rank == 0:
        publish_data(Store(config.store), plan_run(config))
    # What the first worker's planning made is read by the second, as by workers on other hosts.
    distributed.barrier()
    plan = plan_run(config)
    run_stages(plan.stages, config.store, config.scale, context)
    return plan


@dataclass(frozen=True)
class Made:
    """Make the stages of a run, in its store, without a record or a report."""

    plan: Plan
    store: Store


def made(config: RunConfig) -> Made:
    """Make all stages of a run in this process."""
    with PlainContext() as context:
        return Made(make(config, context), Store(config.store))


def in_pair(work: Callable[[Pair, Path], None], folder: Path) -> Callable[[], None]:
    """Start two processes that call `work` with their context; return a function to join them."""
    # Not forked from a server that has imported torch: starting one waits for it without a limit.
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_start, args=(rank, work, folder)) for rank in range(2)]
    for worker in workers:
        worker.start()

    def wait() -> None:
        for worker in workers:
            worker.join(900)
            worker.kill()
            worker.join()
        said = [path.read_text() for path in sorted(folder.glob("worker-*-failed.txt"))]
        codes = [worker.exitcode for worker in workers]
        assert codes == [0, 0], "\n".join([f"the workers ended with {codes}", *said])

    return wait


def _start(rank: int, work: Callable[[Pair, Path], None], folder: Path) -> None:
    try:
        work(Pair(rank, folder), folder)
        distributed.destroy_process_group()
        code = 0
    except BaseException:
        # Under xdist, a worker's output is lost.
        (folder / f"worker-{rank}-failed.txt").write_text(traceback.format_exc())
        code = 1
    # Python's own end takes the GIL from threads of torch that still free tensors, which aborts.
    os._exit(code)
