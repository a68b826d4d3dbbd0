"""Answers to the parts of a file, made by several Ray workers with Ray Data.

Workers read their part of the file and write the answers themselves, so that the driver handles
only numbers, however long the file is.
"""

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from knife.cluster.address import cluster_address
from knife.cluster.capacity import machine, resources, start_errors, worker_errors
from knife.core.errors import SessionLostError, UserError, raise_errors
from knife.core.exits import say
from knife.inference.answers import Answerer, Answers
from knife.inference.parts import Part
from knife.launch.session import in_thread, next_session, session

# The work fails once this many workers were lost on one part. Ray's own limit would also count
# each attempt to reach a worker whose host has just died.
_MAX_TRIES = 4
# Parts beyond this number share blocks: each block is a separate object for Ray.
_MAX_BLOCKS = 4096
_LOOK_SECONDS = 120
# An NFS client may serve a cached listing of a folder for this many seconds.
_SEEN_SECONDS = 10


def place_errors(workers: int) -> list[str]:
    """Return why workers could not start from here: what this machine lacks, or what is wrong with
    RAY_ADDRESS. A cluster's CPUs are checked when the work starts."""
    errors = start_errors()
    if not cluster_address():
        errors += worker_errors("--workers", workers, machine()["CPU"], "this machine")
    return errors


def answer_parts(
    model: Path,
    file: Path,
    answers: Answers,
    parts: Sequence[Part],
    workers: int,
    answered: Callable[[Part], None],
) -> None:
    """Answer parts of a file, in the running Ray session or a new one.

    Each worker loads the student once; lost workers are replaced, and so is a session of ours that
    is lost. GPUs are shared evenly.
    `answered` is called with each finished part, in any order.

    Raises:
        UserError: more workers than the cluster has CPUs, a path that one of its hosts does not
            see, or a user error in a worker.
        SessionLostError: Ray's own processes died again and again, or those of a cluster.
        RuntimeError: workers were lost on the same questions again and again.
    """
    # Otherwise Ray reports a dying host once a second until it is sure of its death.
    os.environ.setdefault("RAY_enable_output_error_log_if_still_retry", "0")
    waiting = dict.fromkeys(parts)

    def tell(part: Part) -> None:
        del waiting[part]
        answered(part)

    for number in itertools.count(1):
        answers.forget_tries()
        try:
            with session(machine()["GPU"]):
                _run(_Worker(model, file, answers), list(waiting), workers, tell)
                return
        except SessionLostError as lost:
            if cluster_address():
                raise
            say(f"note: {next_session(lost, number)}")


class _Worker:
    """What each Ray worker does."""

    def __init__(self, model: Path, file: Path, answers: Answers) -> None:
        self.model, self.file, self.answers = model, file, answers
        self.answerer: Answerer | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Answer the parts of a batch; a user error is returned as text."""
        errors, lost = [], []
        for part in _parts(batch):
            message, too_often = "", False
            try:
                # A worker may be lost after it has written its answers but before it reports them.
                if not self.answers.path(part).exists():
                    too_often = self.answers.begin(part) > _MAX_TRIES
                    if not too_often:
                        self.answerer = self.answerer or Answerer(self.model)
                        self.answerer.answer(self.file, part, self.answers)
            except UserError as error:
                message = "\n".join(error.errors)
            errors.append(message)
            lost.append(too_often)
        return batch | {"errors": errors, "lost": lost}


def _run(
    worker: _Worker,
    parts: Sequence[Part],
    workers: int,
    answered: Callable[[Part], None],
) -> None:
    import ray.data

    from knife.launch.quiet_data import quiet_data

    there = ray.cluster_resources()
    raise_errors(worker_errors("--workers", workers, there.get("CPU", 0), "the cluster"))
    raise_errors(_host_errors(worker.model, worker.file, worker.answers.folder))
    cpus = 1 if cluster_address() else max(1, int(there["CPU"]) // workers)
    gpus = _share(there.get("GPU", 0), workers)
    taken = resources(cpus, gpus)
    dataset = ray.data.from_items(
        [asdict(part) for part in parts], override_num_blocks=min(len(parts), _MAX_BLOCKS)
    )
    dataset = dataset.map_batches(
        _Worker,
        fn_constructor_args=(worker.model, worker.file, worker.answers),
        batch_size=1,
        # One part waits behind the one being answered.
        compute=ray.data.ActorPoolStrategy(
            size=min(workers, len(parts)), max_tasks_in_flight_per_actor=2
        ),
        num_cpus=taken["CPU"],
        num_gpus=taken.get("GPU"),
    )

    over = threading.Event()

    def take() -> None:
        for batch in dataset.iter_batches(batch_size=None):
            if over.is_set():
                # Of a lost session: the next one answers what nobody was told of.
                return
            raise_errors(line for text in batch["errors"] for line in text.splitlines())
            for part, lost in zip(_parts(batch), batch["lost"], strict=True):
                if lost:
                    raise RuntimeError(
                        f"{_MAX_TRIES} workers in a row were lost while answering the {part.rows} "
                        f"questions from line {part.line} of {worker.file}"
                    )
                answered(part)

    with quiet_data():
        try:
            in_thread(take).result()
        finally:
            over.set()


def _parts(batch: dict[str, Any]) -> list[Part]:
    """Return the parts in a batch of columns."""
    columns = [batch[field.name].tolist() for field in fields(Part)]
    return [Part(*values) for values in zip(*columns, strict=True)]


def _share(gpus: float, workers: int) -> float:
    """Return each worker's share of a GPU: all of one, an even fraction of one, or nothing."""
    return 1 / math.ceil(workers / gpus) if gpus else 0.0


def _host_errors(model: Path, file: Path, folder: Path) -> list[str]:
    """Return an error for each path that differs on another host of the cluster."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    own = ray.get_runtime_context().get_node_id()
    hosts = [
        node
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] != own and node["Resources"].get("CPU")
    ]
    look = ray.remote(num_cpus=0)(unseen)
    seen = {
        node["NodeManagerAddress"]: look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(model, file, file.stat().st_size, folder)
        for node in hosts
    }
    errors = []
    for address, answer in seen.items():
        # A host that does not answer has died: no work will run there.
        with suppress(ray.exceptions.RayError):
            errors += [
                f"{name}: the cluster's host {address} {what}; models, questions and output must "
                "be on storage that every host can access"
                for name, what in ray.get(answer, timeout=_LOOK_SECONDS)
            ]
    return errors


def unseen(
    model: Path, file: Path, size: int, folder: Path, seconds: float = _SEEN_SECONDS
) -> list[tuple[str, str]]:
    """Return what this host lacks of a student's model, a file of `size` bytes, and a writable
    folder.

    New files on a network disk may take up to `seconds` to appear.
    """
    end = time.monotonic() + seconds
    while (found := _unseen(model, file, size, folder)) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def _unseen(model: Path, file: Path, size: int, folder: Path) -> list[tuple[str, str]]:
    found = []
    if not (model / "knife.json").is_file():
        found.append(("STUDENT", f"has no student in {model}"))
    if not file.is_file() or file.stat().st_size != size:
        found.append(("FILE", f"has no {file}, or a different one"))
    if not os.access(folder, os.W_OK):
        found.append(("--output", f"cannot write to {folder}"))
    return found
