"""One trial in a worker of Ray Tune: a run's teacher and students, without its verdict.

Trials share teachers and states through the store: a trial that needs a missing one makes it under
its lock, and others that need the same one wait for that lock and nothing else.
"""

import math
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from filelock import Timeout

from knife.config.run import RunConfig, parse
from knife.launch.executor import launch
from knife.pipeline.run import publish_data
from knife.plan.pace import Pace
from knife.plan.plan import Member, Plan, needed, plan_run
from knife.plan.sources import SourceReader
from knife.plan.stage import Stage
from knife.store.store import Store, fingerprint
from knife.train.context import PlainContext
from knife.train.journal import Position, read_stage
from knife.train.results import accuracy, read_trained
from knife.tune.search.space import Point, Space

# The name in Ray Tune of the sweep's metric: the best value so far.
SCORE = "score"
# Ray allows fractions of CPUs: a worker leaves a hundredth for the trial that waits for it, so that
# a trial of N workers fits N CPUs.
NESTED_CPUS = 0.99

# A worker of Ray Tune runs one trial after another and keeps the data it has read.
_reader = SourceReader()


@dataclass(frozen=True)
class Task:
    """What the trials of one phase have in common.

    Attributes:
        space: makes run configs from points.
        test: whether students are evaluated on test, and `ceiling` whether teachers are.
        failed: folder for the notes of failed trials.
    """

    space: Space
    test: bool
    ceiling: bool
    failed: Path


def run_trial(params: Point, task: Task) -> None:
    """Run a trial's stages and report its scores; called by Ray Tune.

    `params` has the trial's `number`, and one of: its `point` (with `seeds` if they are not the
    search's), what optuna `suggested`, or a whole run `config`.

    An error is written to a note and not raised, since Ray Tune would restart the trial in a new
    process, only for the same error to recur.
    """
    from ray import tune

    note = failure_note(task.failed, params)
    if note.is_file():
        return
    try:
        _Trial(task, config_of(params, task.space)).run()
    except Exception as error:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(error).strip() or type(error).__name__)
        tune.report({"failed": True})
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            # An error on a GPU can corrupt the process: raise, so that Ray Tune starts another one.
            raise


def trial_key(params: Point) -> str:
    """Return a name for the trial of these params that is the same at every start."""
    return f"{params['number']}-{fingerprint(params)}"


def failure_note(folder: Path, params: Point) -> Path:
    """Return the path of the note in which the trial of these params leaves its error."""
    return folder / f"{trial_key(params)}.txt"


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


@dataclass
class _Trial:
    task: Task
    config: RunConfig
    scores: dict[str, float] = field(default_factory=dict)
    students: dict[str, str] = field(default_factory=dict)
    tests: dict[str, float] = field(default_factory=dict)
    reported: int = 0
    # Accuracy and negative loss of the best evaluation so far, whose model is kept, and its score.
    best: tuple[float, float, float] = (-math.inf, -math.inf, math.nan)

    def run(self) -> None:
        plan = plan_run(self.config, _reader, elsewhere=True)
        self.store = Store(self.config.store)
        for key in plan.data:
            publish_data(self.store, key, plan)
        # One seed after another, so that the first score is known while the others train; but a
        # worker group takes so long to start that it trains all of them.
        together = self.config.scale.workers > 1
        for members in [plan.members] if together else [[m] for m in plan.members]:
            self._make(plan, members)
            for member in members:
                self._note(member)
            if len(self.scores) < len(plan.members):
                self._report(epoch=len(self.scores))
        self._report(epoch=self.last_epoch, finished=True)

    @property
    def last_epoch(self) -> int:
        return self.config.student.epochs

    def _make(self, plan: Plan, members: list[Member]) -> None:
        stages = trial_stages(plan, members, self.task)
        missing = needed(stages, self.store.have(stages))
        try:
            for member in members:
                # A training that resumes from a checkpoint reports the later epochs alone.
                self._pass_on(member.student.key, Position())
            if not missing:
                return
            if self.config.scale.workers > 1:
                self._launch(missing, members[0], Pace(plan.data))
                return
            # DeepSpeed takes seconds to import, and following a worker group does not need it.
            from knife.train.stages import run_stages

            with _TuneContext(self) as context:
                run_stages(missing, self.store.address, self.config.scale, context)
        except SystemExit:
            # Ray Tune ends the trial; its students will not be resumed.
            for member in members:
                drop_unfinished(self.store, member.student)
            raise

    def report_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Report an evaluation on dev; the last one is reported with the result, once stored."""
        accuracy, loss = metrics["dev_accuracy"], metrics["dev_loss"]
        self.best = max(self.best, (accuracy, -loss, metrics[self.task.space.sweep.metric]))
        if len(self.config.seeds) == 1 and self.reported < epoch < self.last_epoch:
            self.reported = epoch
            self._report(epoch=epoch)

    def _pass_on(self, student: str, position: Position) -> Position:
        """Report the evaluations in a student's journal from a position on; return its end."""
        rows, position = read_stage(self.store, "student", student, position)
        for row in rows:
            if "dev_accuracy" in row["metrics"]:
                self.report_epoch(round(row["epoch"]), row["metrics"])
        return position

    def _launch(self, stages: list[Stage], member: Member, pace: Pace) -> None:
        """Run stages in their own worker group, and follow the student's journal."""
        ended = threading.Event()
        errors: list[BaseException] = []

        def work() -> None:
            try:
                launch(
                    stages, self.store.address, self.config.scale, pace, cpus_per_worker=NESTED_CPUS
                )
            except BaseException as error:
                errors.append(error)
            finally:
                ended.set()

        threading.Thread(target=work, name="knife-launch", daemon=True).start()
        position, last = Position(), False
        while not last:
            last = ended.wait(max(0.2, self.store.seconds))
            position = self._pass_on(member.student.key, position)
        if errors:
            raise errors[0]

    def _note(self, member: Member) -> None:
        trained = read_trained(self.store, "student", member.student.key)
        seed = str(member.seed)
        self.scores[seed] = trained[self.task.space.sweep.metric]
        self.students[seed] = member.student.key
        if self.task.test:
            self.tests[seed] = accuracy(self.store, member.evaluate.key)

    def _report(self, *, epoch: int, finished: bool = False) -> None:
        from ray import tune

        mean = sum(self.scores.values()) / len(self.scores) if self.scores else self.best[-1]
        tune.report(
            {
                SCORE: mean,
                "epoch": epoch,
                "finished": finished,
                "scores": dict(self.scores),
                "students": dict(self.students),
                "tests": dict(self.tests),
            }
        )


def drop_unfinished(store: Store, stage: Stage, wait: float = 0) -> None:
    """Remove the files of a training that was ended early, unless another process holds its lock
    for more than `wait` seconds."""
    folder = store.root / "work" / f"{stage.kind}-{stage.key}"
    if folder.is_dir():
        with suppress(Timeout), store.lock(stage.kind, stage.key).acquire(timeout=wait):
            store.drop_work(stage.kind, stage.key)


class _TuneContext(PlainContext):
    """The context of a plain process that reports to Ray Tune and may be ended by it."""

    def __init__(self, trial: _Trial) -> None:
        super().__init__()
        self._trial = trial

    def evaluated(self, _: Stage, epoch: int, metrics: dict[str, float]) -> None:
        """Report a student's score; Ray Tune may end the trial here with SystemExit."""
        self._trial.report_epoch(epoch, metrics)
