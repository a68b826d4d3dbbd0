"""Answers asked for by several Ray workers, with Ray Data.

Each worker keeps the answers itself, in a file of its own, so that the driver handles only numbers.
Ray Data's own stage for HTTP requests sends those of a batch one after another, takes the body of
an error for an answer, and keeps nothing before the end.
"""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from knife.cluster.address import cluster_address
from knife.cluster.capacity import machine, resources, worker_errors
from knife.config.write import Budget, Write
from knife.core import strict_json
from knife.core.errors import SessionLostError, UserError, raise_errors
from knife.core.exits import say
from knife.data.example import Example
from knife.launch.session import in_thread, next_session, session
from knife.writing.asking import USED_UP, Asker, Outcome, Spent
from knife.writing.kept import Keeper, Kept
from knife.writing.local import LocalAsker
from knife.writing.prompt import Prompt
from knife.writing.request import Request, tokens_in
from knife.writing.server import Secret

# A part has so many times a worker's requests in flight: small, so that all workers end together.
_PART = 2
# An NFS client may serve a cached listing of a folder for this many seconds.
_SEEN_SECONDS = 10


@dataclass(frozen=True)
class Work:
    """What each worker needs to ask.

    Attributes:
        settings, prompt, key: how to ask.
        folder: where answers are kept.
        model: the folder of a model that runs here; None if a server is asked.
        first: requests that were asked before.
    """

    settings: Write
    prompt: Prompt
    key: Secret
    folder: Path
    model: Path | None
    first: Sequence[Request] = ()


def ask_in_workers(
    work: Work, requests: Sequence[Request], workers: int, done: Callable[[int], None]
) -> Outcome:
    """Ask for answers from several Ray workers, in the running Ray session or a new one; `done` is
    called with each number of requests.

    Lost workers are replaced, and so is a session of ours that is lost: what they had asked for and
    not kept is asked again. With a budget, they are given as many requests at a time as it allows
    whatever the answers take.

    Raises:
        UserError: more workers than the cluster has CPUs, or a user error in a worker.
        SessionLostError: Ray's own processes died again and again, or those of a cluster.
    """
    for number in itertools.count(1):
        try:
            with session(machine()["GPU"] if work.model else 0):
                return _run_within_budget(work, requests, workers, done)
        except SessionLostError as lost:
            if cluster_address():
                raise
            say(f"note: {next_session(lost, number)}")
    raise AssertionError


class _Worker:
    """What each Ray worker does: it asks for two parts at once, so that none waits for the end of
    another, with as many requests in flight as one process may have."""

    def __init__(self, work: Work, share: float) -> None:
        self._work, self._share = work, share
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asker: Asker | LocalAsker | None = None
        self._kept: Kept | None = None
        self._keeper: Keeper | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Ask for the answers of a batch; a user error is returned as text."""
        requests = _requests(batch)
        try:
            outcome, errors = self._ask(requests), ""
            if self._keeper:
                self._keeper.sync()
        except UserError as error:
            outcome, errors = Outcome(), "\n".join(error.errors)
        return {
            "asked": [len(requests)],
            "errors": [errors],
            "outcome": [strict_json.dumps(asdict(outcome))],
        }

    def _ask(self, requests: list[Request]) -> Outcome:
        # Ray Data's workers may be threads of one process.
        with self._lock:
            self._begin()
            # The parts of a lost worker are asked for again, by any other; some are answered.
            assert self._kept
            self._kept.read_more()
            requests = self._kept.missing(requests, self._work.settings.longest)
            if isinstance(self._asker, LocalAsker):
                return self._asker.ask(requests)
        assert self._loop
        assert isinstance(self._asker, Asker)
        return asyncio.run_coroutine_threadsafe(self._asker.ask(requests), self._loop).result()

    def _begin(self) -> None:
        if self._asker:
            return
        work = self._work
        _wait_for(work.folder)
        self._kept = Kept(work.folder)
        keeper = self._keeper = Keeper(work.folder)
        # The driver sees to the budget.
        spent = Spent(work.settings.model_copy(update={"budget": Budget()}), 0, 0)
        if work.model:
            self._asker = LocalAsker(work.settings, work.model, work.prompt, keeper, spent)
            return
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="knife-ask", daemon=True).start()

        async def made() -> Asker:
            return Asker(work.settings, work.prompt, work.key, keeper, spent, self._share)

        self._asker = asyncio.run_coroutine_threadsafe(made(), self._loop).result()


def _run_within_budget(
    work: Work, requests: Sequence[Request], workers: int, done: Callable[[int], None]
) -> Outcome:
    """Ask for answers until the budget does not allow another."""
    outcome = Outcome()
    kept = Kept(work.folder)
    # Of a lost session: some are answered.
    waiting = kept.missing(requests, work.settings.longest)
    budget = work.settings.budget
    if budget.tokens is None and budget.money is None:
        del kept
        return _run(work, waiting, workers, done) if waiting else outcome
    # What the driver has asked for, or what was answered before.
    done_before = work.first
    while waiting and not outcome.stopped:
        some = _affordable(work, waiting, done_before, kept)
        if not some:
            outcome.stopped = USED_UP
            break
        outcome.add(_run(work, some, workers, done))
        kept.read_more()
        waiting, done_before = waiting[len(some) :], some
    return outcome


def _asked(work: Work, request: Request) -> int:
    """Estimate the number of tokens that a model reads of a request."""
    return tokens_in(work.prompt.messages(request.example, request.kind))


def _affordable(
    work: Work, requests: Sequence[Request], done: Sequence[Request], kept: Kept
) -> Sequence[Request]:
    """Return the first requests that the budget allows, whatever their answers take; those that are
    `done` show how far estimates are off."""
    spent = Spent(work.settings, kept.read, kept.written)
    for request in done:
        if answer := kept.answers.get(request.key):
            spent.learn(answer, _asked(work, request))
    for number, request in enumerate(requests):
        if not spent.reserve(request.key, _asked(work, request), work.settings.longest):
            return requests[:number]
    return requests


def _run(
    work: Work, requests: Sequence[Request], workers: int, done: Callable[[int], None]
) -> Outcome:
    import ray.data

    from knife.launch.quiet_data import quiet_data

    there = ray.cluster_resources()
    raise_errors(worker_errors("write.workers", workers, there.get("CPU", 0), "the cluster"))
    gpus = min(1.0, there.get("GPU", 0) / workers) if work.model else 0
    taken = resources(1, gpus)
    part = work.settings.in_flight * _PART
    dataset = ray.data.from_arrow(
        [_table(requests[start : start + part]) for start in range(0, len(requests), part)]
    )
    dataset = dataset.map_batches(
        _Worker,
        fn_constructor_args=(work, 1 / workers),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(
            size=workers,
            # One part waits behind those two.
            max_tasks_in_flight_per_actor=3,
            max_concurrent_calls_per_actor=2,
            enable_true_multi_threading=True,
        ),
        num_cpus=taken["CPU"],
        num_gpus=taken.get("GPU"),
    )
    outcome, over = Outcome(), threading.Event()

    def take() -> None:
        for batch in dataset.iter_batches(batch_size=None):
            if over.is_set():
                return
            raise_errors(dict.fromkeys(x for text in batch["errors"] for x in text.splitlines()))
            for asked, found in zip(batch["asked"], batch["outcome"], strict=True):
                outcome.add(Outcome(**json.loads(found)))
                done(int(asked))

    with quiet_data():
        try:
            in_thread(take).result()
        finally:
            over.set()
    return outcome


def _table(requests: Sequence[Request]) -> Any:
    """Return requests as an Arrow table."""
    import pyarrow as pa

    return pa.table(
        {
            "key": [request.key for request in requests],
            "id": [request.example.id for request in requests],
            "question": [request.example.question for request in requests],
            "choices": [list(request.example.choices) for request in requests],
            "answer": [request.example.answer for request in requests],
            "kind": [request.kind for request in requests],
            "sample": [request.sample for request in requests],
        }
    )


def _requests(batch: dict[str, Any]) -> list[Request]:
    """Return the requests of a batch of columns."""
    columns = [batch[name].tolist() for name in ("key", "id", "question", "answer", "kind")]
    rows = zip(*columns, batch["choices"], batch["sample"].tolist(), strict=True)
    return [
        Request(key, Example(identity, question, tuple(choices), answer), kind, sample)
        for key, identity, question, answer, kind, choices, sample in rows
    ]


def _wait_for(folder: Path) -> None:
    """Wait until this host sees a folder, which another may have made a moment ago.

    Raises:
        UserError: it does not.
    """
    end = time.monotonic() + _SEEN_SECONDS
    while not folder.is_dir():
        if time.monotonic() > end:
            raise UserError(
                f"--out: a host of the cluster has no {folder}; give a folder on storage that "
                "every host can access"
            )
        time.sleep(0.2)
