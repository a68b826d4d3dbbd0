"""Makes stages side by side, each in a worker group of Ray Train, as many as there is room for."""

import itertools
import queue
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import ray

from knife.cluster.address import cluster_address
from knife.cluster.capacity import (
    Host,
    capacity_errors,
    cpus_of_a_worker,
    groups_that_fit,
    parallel_errors,
    session_errors,
)
from knife.config.scale import Scale
from knife.core.errors import SessionLostError, UserError, raise_errors
from knife.core.words import counted
from knife.launch.context import request_stop
from knife.launch.groups import Post, open_groups
from knife.launch.session import (
    ENVIRONMENT,
    first_line,
    in_thread,
    lost_words,
    next_session,
    session,
)
from knife.launch.slot import (
    CLOSED,
    KILLED,
    MOST_FAILURES,
    NOTED,
    Ended,
    Slot,
    sweep,
    timeouts,
)
from knife.plan.events import Event, Made, Note, Pruned, Started, failures
from knife.plan.pace import Pace
from knife.plan.schedule import Schedule, Work
from knife.plan.stage import Stage
from knife.store.store import Store

GoesOn = Callable[[Stage, int, dict[str, float]], bool]

# How long workers have for their checkpoints after a stop request.
_CHECKPOINT_SECONDS = 60.0
# How long a question for news waits; nothing depends on it.
_TURN_SECONDS = 5.0


@dataclass
class _Group:
    """A slot's worker group.

    Attributes:
        slot: what its workers know.
        work: what it makes; None while it has nothing to do.
        number: the number of its last work; 0 if it never had any.
        reference: keeps that work in Ray's store of objects.
        ready: whether its workers have started.
        before: what of its work needed not be made again when it got it, or at its last failure.
    """

    slot: Slot
    work: Work | None = None
    number: int = 0
    reference: Any = None
    ready: bool = False
    before: set[str] = field(default_factory=set)


class Executor:
    """Makes stages side by side on Ray.

    Iterate over it for what happens, until everything that was added is made or has failed; more
    may be added meanwhile. If the loop is left by an exception, what is under way ends with
    checkpoints.

    Args:
        address: the store's folder or url.
        scale: workers of each stage, and how many stages may be under way at a time.
        pace: estimates how long stages take, and learns it here.
        width: the most stages that could be under way at a time, whether they are made already or
            not: the CPUs of a worker, and with them the rounding of its sums, depend on it.
        need: bytes of memory that a worker needs.
        links: gets a line with the session's dashboard.

    Attributes:
        schedule: what is to be made.
        slots: the most stages that are under way at a time.
        goes_on: decides whether a student's training goes on after an evaluation, given the
            stage, its epochs and metrics; None, which is to be replaced before anything is added,
            if every one does.
    """

    def __init__(
        self,
        address: Path | str,
        scale: Scale,
        pace: Pace,
        *,
        width: int,
        need: float = 0,
        links: list[str] | None = None,
    ) -> None:
        self.schedule = Schedule(pace.seconds)
        self.slots = 0
        self.goes_on: GoesOn | None = None
        self._store, self._scale, self._pace, self._need = Store(address), scale, pace, need
        self._width = width
        self._links = [] if links is None else links
        self._numbers = itertools.count(1)
        self._groups: dict[int, _Group] = {}
        self._lost_sessions = 0
        # How often something has lost its workers since it last made progress.
        self._losses: Counter[Work] = Counter()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start a Ray session, unless there is one.

        Raises:
            UserError: there is no room for one stage, or for `scale.parallel`.
        """
        raise_errors(session_errors(self._scale))
        sweep(self._store)
        self._open()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            if not isinstance(error, SessionLostError):
                self._end(self._groups.values(), stop=error is not None)
                with suppress(ray.exceptions.RayError):
                    ray.kill(self._actor)
        finally:
            self._stack.__exit__(kind, error, trace)

    def add(self, stages: Iterable[Stage]) -> None:
        """Add stages to make, in the order in which equal ones are made."""
        self.schedule.add(stages)

    def __iter__(self) -> Iterator[Event]:
        """Yield what happens.

        Raises:
            UserError, SessionLostError, RuntimeError: as `rounds` does.
        """
        for events in self.rounds():
            yield from events

    def rounds(self, seconds: float | None = None) -> Iterator[list[Event]]:
        """Yield what happens, and nothing after so many seconds in which nothing does.

        Raises:
            UserError: the store is not the same on all hosts.
            SessionLostError: Ray's own processes died again and again, or those of a cluster.
            RuntimeError: worker groups fail before they have any work.
        """
        while self.schedule.unfinished():
            events: list[Event] = []
            try:
                self._assign()
                with suppress(queue.Empty):
                    events += self._heard(self._news.get(timeout=seconds))
            except SessionLostError as error:
                events.append(self._reopened(error))
            except ray.exceptions.RayError as error:
                lost = SessionLostError(f"Ray failed ({first_line(error)})")
                events.append(self._reopened(lost))
            yield events

    def drop(self) -> None:
        """End what is under way, after checkpoints, and forget everything that is not made."""
        ready = [group for group in self._groups.values() if group.ready]
        self._end(ready, stop=True)
        # The others have not begun.
        self._groups = {n: group for n, group in self._groups.items() if not group.ready}
        for group in self._groups.values():
            self._withdraw(group)
        for work in self.schedule.unfinished():
            self.schedule.drop(work)

    def _open(self) -> None:
        """Start the session and what is needed in it; worker groups start when there is work."""
        self._groups = {}
        news = self._news = queue.SimpleQueue[Any]()
        scale, gpus = self._scale, self._scale.workers * self._scale.gpus_per_worker
        if scale.gpus_per_worker:
            import torch

            gpus = max(gpus, torch.cuda.device_count())
        found = self._stack.enter_context(session(gpus))
        self._links += [link for link in found if link not in self._links]
        raise_errors(capacity_errors(scale, ray.cluster_resources(), "the cluster"))
        hosts = _hosts()
        room = groups_that_fit(scale, hosts, self._need)
        where = "the cluster" if cluster_address() else "this machine"
        raise_errors(parallel_errors(scale, room, where))
        wanted = room if scale.parallel == "auto" else scale.parallel
        self.slots = min(wanted, self._width)
        self._cpus = cpus_of_a_worker(scale, hosts, self.slots)
        self._name = f"knife-{uuid.uuid4().hex[:12]}"
        groups = self._actor = open_groups(self._name, self.slots, ENVIRONMENT | timeouts(scale))

        def listen() -> None:
            while True:
                if posts := ray.get(groups.receive.remote(_TURN_SECONDS)):
                    news.put(posts)

        in_thread(listen).add_done_callback(lambda done: news.put(done.exception()))

    def _reopened(self, error: SessionLostError) -> Note:
        """Replace a lost session; what was under way resumes from its checkpoints."""
        self._lost_sessions += 1
        words = next_session(error, self._lost_sessions)
        self._stack.close()
        for group in self._groups.values():
            if group.work:
                self.schedule.put_back(group.work)
        self._losses.clear()
        try:
            self._open()
        except UserError as dead:
            if address := cluster_address():
                raise SessionLostError(lost_words(address)) from dead
            raise
        return Note(words)

    def _assign(self) -> None:
        """Give slots without work what should be made now, or what others cannot begin yet."""
        free = [group for group in self._groups.values() if group.ready and not group.work]
        while free or len(self._groups) < self.slots:
            if not (work := self.schedule.take()):
                break
            self._give(free.pop(0) if free else self._started(), work)
        # Workers take seconds to start, which what waits for its inputs need not wait for as well.
        # On a cluster, they would hold for a whole teacher's time what others could use.
        wanted = 0 if cluster_address() else min(self.slots, len(self.schedule.unfinished()))
        while len(self._groups) < wanted:
            self._started()
        # After the loss of a host there may be no resources for some.
        waiting = [group for group in self._groups.values() if group.work and not group.ready]
        for group, other in zip(free, waiting, strict=False):
            if work := self._withdraw(other):
                self._give(group, work)

    def _give(self, group: _Group, work: Work) -> None:
        """Give a slot work."""
        group.work, group.number = work, next(self._numbers)
        group.before = self._done(work)
        group.reference = ray.put(work.stages)
        self._actor.give.remote(group.slot.number, group.number, [group.reference])

    def _withdraw(self, group: _Group) -> Work | None:
        """Take back and return what a slot has not begun."""
        work, group.work = group.work, None
        if work:
            self._actor.withdraw.remote(group.slot.number, group.number)
        return work

    def _started(self) -> _Group:
        """Start the worker group of another slot."""
        number = next(number for number in itertools.count() if number not in self._groups)
        name = f"ray-{uuid.uuid4().hex[:12]}"
        mark = self._store.root / "work" / f"{name}.mark" if self._store.shared else None
        slot = Slot(
            number=number,
            start=next(self._numbers),
            groups=self._name,
            address=self._store.address,
            scale=self._scale,
            name=name,
            mark=mark,
            cpus=self._cpus,
            judged=self.goes_on is not None,
        )
        self._actor.start.remote(slot)
        self._groups[number] = _Group(slot)
        return self._groups[number]

    def _heard(self, news: list[Post] | BaseException) -> Iterator[Event]:
        if isinstance(news, BaseException):
            raise news
        for number, which, what, value in news:
            group = self._groups.get(number)
            if group and what == "ready" and group.slot.start == which:
                group.ready = True
            elif group and what == "ended" and group.slot.start == which:
                yield from self._ended(group, value)
            elif group and group.work and group.number == which:
                yield from self._told(group, group.work, what, value)

    def _told(self, group: _Group, work: Work, what: str, value: Any) -> Iterator[Event]:
        """Handle what a worker group tells about its work."""
        if what == "begun":
            if self._losses[work]:
                yield Note(f"{work.label}: a worker was lost, and others take its place")
            yield Started(work, group.slot.number)
            return
        if what == "evaluated":
            (stage,), (epoch, metrics) = work.stages, value
            goes_on = self.goes_on is None or self.goes_on(stage, epoch, metrics)
            self._actor.answer.remote(group.slot.number, group.number, epoch, goes_on)
            return
        group.work = None
        if what == "pruned":
            self.schedule.drop(work)
            yield Pruned(work, group.slot.number)
        elif what == "made":
            self._pace.add(work.stages[0], value)
            self.schedule.done(work)
            yield Made(work, group.slot.number)
        else:
            yield from failures(self.schedule, work, _error(value))

    def _ended(self, group: _Group, why: Ended) -> Iterator[Event]:
        """Handle the end of a worker group that was not closed."""
        assert why
        error, work = _error(why), group.work
        if isinstance(error, UserError):
            raise error
        del self._groups[group.slot.number]
        if why[0] != KILLED and not (group.ready and group.number):
            # It could not start, or there were no resources for as long as Ray waits for them.
            if work:
                self.schedule.put_back(work)
            if not self._groups:
                raise error
            self.slots = len(self._groups)
            yield Note(f"only {counted(self.slots, 'stage')} at a time from here on: {error}")
            return
        if work is None:
            return
        if self._done(work) > group.before:
            self._losses[work] = 0
        self._losses[work] += 1
        if self._losses[work] > MOST_FAILURES:
            error = RuntimeError(_killed(work)) if why[0] == KILLED else error
            yield from failures(self.schedule, work, error)
        else:
            self.schedule.put_back(work)

    def _done(self, work: Work) -> set[str]:
        """Return what of a work need not be made again: stages, checkpoints and shards."""
        done = {key for _, key in self._store.have(work.stages)}
        return done.union(*(self._store.begun(stage.kind, stage.key) for stage in work.stages))

    def _end(self, groups: Iterable[_Group], *, stop: bool) -> None:
        """End worker groups; with `stop`, in the middle of their work, after checkpoints."""
        # Those that still wait for resources end with their actor.
        left = {group.slot.start for group in groups if group.ready}
        with suppress(ray.exceptions.RayError):
            for group in groups:
                self._actor.give.remote(group.slot.number, next(self._numbers), CLOSED)
                if stop:
                    request_stop(group.slot.name)
        end = time.monotonic() + _CHECKPOINT_SECONDS
        while left:
            try:
                news = self._news.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                return
            if isinstance(news, BaseException):
                return
            left -= {which for _, which, what, _ in news if what == "ended"}


def _error(found: tuple[str, list[str]]) -> Exception:
    """Return the error with this name and these lines."""
    kind, lines = found
    return NOTED.get(kind, RuntimeError)(*lines)


def _killed(work: Work) -> str:
    """Return what to do if the workers of some stages were killed again and again."""
    lower = "lower scale.parallel"
    if work.stages[0].kind in ("teacher", "student"):
        lower += f", or {work.stages[0].kind}.batch_size"
    return (
        f"{work.label}: its workers were killed {MOST_FAILURES + 1} times without any progress, "
        f"often for lack of memory: {lower}"
    )


def _hosts() -> list[Host]:
    """Return what the hosts of the session have."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Host(of.get("CPU", 0), of.get("GPU", 0), of.get("memory", 0)) for of in found]
