"""One trial of a sweep: a run's teacher and students, without its verdict."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from knife.config.run import RunConfig, parse
from knife.plan.plan import Member, Plan, needed
from knife.plan.schedule import Artifact
from knife.plan.stage import Stage
from knife.store.store import Store, fingerprint
from knife.train.journal import Position, read_stage
from knife.train.results import accuracy, read_trained
from knife.tune.search.space import Point, Space

# The name that searchers and schedulers know the sweep's metric by: the best value so far.
SCORE = "score"
Report = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """What the trials of one phase have in common.

    Attributes:
        space: makes run configs from points.
        test: whether students are evaluated on test, and `ceiling` whether teachers are.
    """

    space: Space
    test: bool
    ceiling: bool


def trial_key(params: Point) -> str:
    """Return a name for the trial of these params that is the same at every start."""
    return f"{params['number']}-{fingerprint(params)}"


def point_of(params: Point, space: Space) -> Point:
    """Return the point of a trial's params; empty if they are a run config."""
    if "config" in params:
        return {}
    if "suggested" in params:
        return space.decode(params["suggested"])
    return dict(params["point"])


def config_of(params: Point, space: Space) -> RunConfig:
    """Return the run config of a trial's params."""
    if "config" in params:
        return parse(params["config"])
    return space.config(point_of(params, space), params.get("seeds"))


def trial_stages(plan: Plan, members: list[Member], task: Task) -> list[Stage]:
    """Return the stages of some members of a plan, with the evaluations that the task asks for."""
    own = {member.student.key for member in members}
    own |= {member.evaluate.key for member in members} if task.test else set()
    own |= {stage.key for stage in plan.ceiling.values()} if task.ceiling else set()
    return [s for s in plan.stages if s.kind in ("teacher", "states") or s.key in own]


class Trial:
    """A trial under way.

    Its params have its `number`, and one of: its `point` (with `seeds` if they are not the
    search's), what optuna `suggested`, or a whole run `config`.

    Attributes:
        params: its params.
        key: its name, the same at every start.
        plan: its run.
        stages: those of its run that it needs.
        missing: those of its stages that the store lacked when it was last looked at.
        waits_for: those of them that are still to be made.
    """

    def __init__(self, params: Point, plan: Plan, task: Task, store: Store) -> None:
        self.params, self.key, self.plan = params, trial_key(params), plan
        self.stages = trial_stages(plan, plan.members, task)
        self._task, self._store = task, store
        self._scores: dict[str, float] = {}
        self._students: dict[str, str] = {}
        self._tests: dict[str, float] = {}
        self._reported = 0
        # Accuracy and negative loss of the best evaluation so far, whose model is kept, and its
        # score.
        self._best: tuple[float, float, float] = (-math.inf, -math.inf, math.nan)
        self.missing: list[Stage] = []
        self.waits_for: set[Artifact] = set()

    @property
    def number(self) -> int:
        """Its number in the sweep."""
        return int(self.params["number"])

    def look(self) -> None:
        """Find out what the store lacks."""
        self.missing = needed(self.stages, self._store.have(self.stages))
        self.waits_for = {(stage.kind, stage.key) for stage in self.missing}

    def earlier(self) -> Iterator[Report]:
        """Yield reports of evaluations that are in the student's journal already: a training that
        resumes from a checkpoint reports the later epochs alone."""
        if len(self.plan.members) == 1:
            key = self.plan.members[0].student.key
            rows, _ = read_stage(self._store, "student", key, Position())
            for row in rows:
                if "dev_accuracy" in row["metrics"]:
                    yield from self.evaluated(round(row["epoch"]), row["metrics"])

    def evaluated(self, epoch: int, metrics: dict[str, float]) -> Iterator[Report]:
        """Yield a report of an evaluation on dev, if the trial has one student and the epoch is
        new; the last one is reported with the result, once stored."""
        accuracy, loss = metrics["dev_accuracy"], metrics["dev_loss"]
        self._best = max(self._best, (accuracy, -loss, metrics[self._task.space.sweep.metric]))
        if len(self.plan.members) == 1 and self._reported < epoch < self._last_epoch:
            self._reported = epoch
            yield self._report(epoch)

    def made(self, artifacts: Iterable[Artifact] = ()) -> Iterator[Report]:
        """Note that stages are made; yield reports of the students that are complete with them,
        in the order of their seeds, and at last of all."""
        self.waits_for.difference_update(artifacts)
        members = self.plan.members
        for member in members[len(self._scores) :]:
            stages = trial_stages(self.plan, [member], self._task)
            if self.waits_for & {(stage.kind, stage.key) for stage in stages}:
                return
            self._note(member)
            if len(self._scores) < len(members):
                yield self._report(len(self._scores))
        yield self._report(self._last_epoch, finished=True)

    @property
    def _last_epoch(self) -> int:
        return self.plan.config.student.epochs

    def _note(self, member: Member) -> None:
        trained = read_trained(self._store, "student", member.student.key)
        seed = str(member.seed)
        self._scores[seed] = trained[self._task.space.sweep.metric]
        self._students[seed] = member.student.key
        if self._task.test:
            self._tests[seed] = accuracy(self._store, member.evaluate.key)

    def _report(self, epoch: int, *, finished: bool = False) -> Report:
        scores = self._scores
        return {
            SCORE: sum(scores.values()) / len(scores) if scores else self._best[-1],
            "epoch": epoch,
            "finished": finished,
            "scores": dict(scores),
            "students": dict(self._students),
            "tests": dict(self._tests),
            "timestamp": time.time(),
        }
