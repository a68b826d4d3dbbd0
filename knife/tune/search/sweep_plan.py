"""What a sweep will do, known before it starts: trials, refused combinations, teachers."""

from dataclasses import dataclass, field

from knife.config.overrides import describe
from knife.config.run import RunConfig
from knife.core.errors import UserError, raise_errors
from knife.data.digest import split_digest
from knife.pipeline.run import refuse_what_cannot_fit
from knife.plan.plan import Plan, plan_run
from knife.plan.sources import SourceReader
from knife.plan.stage import StatesStage, TeacherStage
from knife.tune.search.space import Point, Space

# Of the combinations of values that change teachers, at most this many are planned.
_MOST_TEACHERS = 200


@dataclass
class SweepPlan:
    """A sweep as trials.

    Attributes:
        space: the sweep's space.
        trials: the most trials that there will be.
        points: their points, in starting order; None if optuna suggests them.
        plans: a plan for each point; if optuna suggests them, one for each possible teacher.
        refused: points that the run config or the data refuse, with the reasons.
        own_teachers: keys of the space that give every trial its own teacher.
        notes: what a user should know about the plan itself, one sentence each.
    """

    space: Space
    trials: int
    points: list[Point] | None
    plans: list[Plan] = field(default_factory=list)
    refused: list[tuple[Point, list[str]]] = field(default_factory=list)
    own_teachers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def shared(self) -> list[TeacherStage | StatesStage]:
        """The distinct teachers and states of the plans, each once."""
        stages = [s for plan in self.plans for s in plan.stages]
        kept = [s for s in stages if isinstance(s, TeacherStage | StatesStage)]
        return list({(stage.kind, stage.key): stage for stage in kept}.values())

    @property
    def teachers(self) -> list[TeacherStage]:
        """The distinct teachers."""
        return [stage for stage in self.shared if isinstance(stage, TeacherStage)]

    @property
    def config(self) -> RunConfig:
        """The run config of one trial; all trials have the same scale, store and tracking."""
        return self.plans[0].config

    @property
    def epochs(self) -> int:
        """Epochs of the longest student training."""
        epochs = [plan.config.student.epochs for plan in self.plans]
        domain = self.space.sweep.space.get("student.epochs")
        return int(max([*epochs, *(domain.probes if domain else [])]))


def plan_sweep(space: Space) -> SweepPlan:
    """Plan every trial if the points are known, or else a trial for every possible teacher.

    Raises:
        UserError: no trial could start (the reasons, each once), or the scheduler would judge none.
    """
    reader = SourceReader()
    if space.sweep.search == "tpe":
        found = _suggested(space, reader)
    else:
        found = SweepPlan(space, 0, [])
        _add(found, space.points(), reader)
        _order(found)
        found.trials = len(found.points or [])
    if not found.plans:
        # An error that every point has is not due to the point.
        common = set.intersection(*(set(errors) for _, errors in found.refused))
        reasons = [
            error if error in common else f"{describe(point)}: {error}"
            for point, errors in found.refused
            for error in errors
        ]
        raise UserError(*dict.fromkeys(reasons))
    _refuse_other_examples(found)
    settings = space.sweep.scheduler
    if settings.name != "none" and settings.grace > found.epochs:
        raise UserError(
            f"scheduler.grace: must be at most the epochs that a student trains, {found.epochs} "
            f"(student.epochs), but got {settings.grace}"
        )
    return found


def _refuse_other_examples(plan: SweepPlan) -> None:
    """Refuse points that leave out different dev or test examples, as scores could not be compared.

    Raises:
        UserError: there are such points.
    """
    data = [splits for each in plan.plans for splits in each.data.values()]
    kept = {
        (
            split_digest(splits, "dev", rationales=False),
            split_digest(splits, "test", rationales=False),
        )
        for splits in data
    }
    if len(kept) > 1 and any(splits.left_out.keys() & {"dev", "test"} for splits in data):
        raise UserError(
            "data.too_long: drop leaves out different dev or test examples at different points of "
            "the space, so their scores could not be compared; use one data.max_tokens and one "
            "tokenizer for all points, or set data.too_long=refuse"
        )


def refuse_what_has_no_room(plan: SweepPlan) -> None:
    """Check that each trial fits into memory and on disk; what is only likely to run out is noted
    in its plan.

    Raises:
        UserError: a trial does not fit.
    """
    errors: list[str] = []
    for each in plan.plans:
        try:
            refuse_what_cannot_fit(each)
        except UserError as error:
            errors += error.errors
    raise_errors(dict.fromkeys(errors))


def _add(plan: SweepPlan, points: list[Point], reader: SourceReader) -> None:
    """Plan points; points with the same run config are one trial."""
    seen = set()
    for point in points:
        try:
            config = plan.space.config(point)
            if (text := config.model_dump_json()) in seen:
                continue
            seen.add(text)
            plan.plans.append(plan_run(config, reader, elsewhere=True))
        except UserError as error:
            plan.refused.append((point, error.errors))
            continue
        if plan.points is not None:
            plan.points.append(point)


def _order(plan: SweepPlan) -> None:
    """Put a trial for each teacher first, so that teachers train in parallel; then the trials that
    need no teacher and so wait for nothing; then the rest, in their order."""
    assert plan.points is not None
    met: set[str] = set()
    ranks = []
    for each in plan.plans:
        keys = {s.key for s in each.stages if isinstance(s, TeacherStage)}
        ranks.append(1 if not keys else 2 if keys <= met else 0)
        met |= keys
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    plan.points = [plan.points[number] for number in order]
    plan.plans = [plan.plans[number] for number in order]


def _suggested(space: Space, reader: SourceReader) -> SweepPlan:
    """Plan an optuna search: a trial for each combination of the values that change teachers."""
    trials = space.sweep.budget.trials
    assert trials is not None
    plan = SweepPlan(space, trials, None)
    probes = {key: domain.probes for key, domain in space.sweep.space.items()}
    base = {key: values[0] for key, values in probes.items()}

    def tried_with(key: str) -> SweepPlan:
        tried = SweepPlan(space, 0, [])
        _add(tried, [base | {key: value} for value in probes[key]], reader)
        return tried

    for key in probes:
        # Use the value with the most teachers: a method without one would hide changes to them.
        tried = tried_with(key)
        counts = [len(_shared_keys(each)) for each in tried.plans]
        if tried.points:
            base = tried.points[counts.index(max(counts))]
    combinations = [base]
    for key, domain in space.sweep.space.items():
        tried = tried_with(key)
        plan.refused += tried.refused
        if len({_shared_keys(each) for each in tried.plans}) > 1:
            if domain.values:
                combinations = [c | {key: v} for c in combinations for v in domain.values]
            elif len({_teacher_keys(each) for each in tried.plans}) > 1:
                plan.own_teachers.append(key)
    if len(combinations) > _MOST_TEACHERS:
        plan.notes.append(
            f"{len(combinations):,} combinations of values change teachers or their states, and "
            f"only the first {_MOST_TEACHERS} are planned here: the sweep may need more teachers "
            "than are counted, and memory and data of the others are checked by their trials"
        )
    _add(plan, combinations[:_MOST_TEACHERS], reader)
    return plan


def _shared_keys(plan: Plan) -> tuple[str, ...]:
    return tuple(s.key for s in plan.stages if isinstance(s, TeacherStage | StatesStage))


def _teacher_keys(plan: Plan) -> tuple[str, ...]:
    return tuple(s.key for s in plan.stages if isinstance(s, TeacherStage))
