"""What a run would do: its stages, and which of them the store has. Writes nothing."""

from collections import Counter
from dataclasses import dataclass

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from knife.config.run import RunConfig
from knife.core.words import counted, size
from knife.data.examples import explained_count
from knife.forecast.forecast import Forecast
from knife.models.weights import Weights
from knife.pipeline.forecast import quick_forecast
from knife.pipeline.run import missing_stages, refuse_what_cannot_fit
from knife.pipeline.settle import settle
from knife.plan.memory import MemoryEstimate
from knife.plan.plan import Plan, design_notes, plan_run
from knife.plan.sources import SourceReader
from knife.plan.stage import Stage, StudentStage, TeacherStage
from knife.plan.steps import total_steps
from knife.store.store import Store

STORED, TO_MAKE, NOT_NEEDED = "in the store", "to make", "not needed"


@dataclass(frozen=True)
class PlannedStage:
    """A stage, what a run would do with it, and the optimizer steps of a training."""

    kind: str
    label: str
    key: str
    state: str
    steps: int | None


@dataclass(frozen=True)
class StageMemory:
    """What a worker of a training needs, in bytes; see `knife.plan.memory.MemoryEstimate`."""

    stage: str
    need: MemoryEstimate


@dataclass(frozen=True)
class DryRun:
    """What `knife run` would do with a config.

    Attributes:
        name: the run's name.
        models: model by role, `teacher` and `student`.
        weights: where a model's parameters come from, by model name.
        splits: number of examples by split, for each of the run's data.
        stages: all stages, in order; first those that decide what the config leaves open.
        needs: what the trainings need, except for models whose files do not state their size.
        states: bytes on disk of the teacher's hidden states.
        store: the artifact store's folder or url.
        forecast: what the data say about the gain of knife; None if the run does not train it, or
            if there are many data, of which no forecast was made.
        notes: what a user should know, one sentence each.
    """

    name: str
    models: dict[str, str]
    weights: dict[str, Weights]
    splits: list[dict[str, int]]
    stages: list[PlannedStage]
    needs: list[StageMemory]
    states: int
    store: str
    forecast: Forecast | None
    notes: list[str]


def dry_run(config: RunConfig) -> DryRun:
    """Plan a run and look into its store.

    Raises:
        UserError: as the run would, if config, data or models are wrong.
    """
    reader, before = SourceReader(), _Before(config.store)
    settled = settle(config, reader, before)
    plan = plan_run(config if before.missing else settled.config, reader)
    store = Store(config.store, write=False)
    missing, damaged = missing_stages(plan, store, repair=False)
    stages = before.stages | _planned(plan, missing, store)
    splits = [
        {
            "train": len(data.train),
            "train with a rationale": explained_count(data.train),
            "dev": len(data.dev),
            "test": len(data.test),
        }
        for data in plan.data.values()
    ]
    models = {"teacher": config.model.teacher, "student": config.model.student}
    refuse_what_cannot_fit(plan)
    return DryRun(
        name=config.name,
        models=models,
        weights=plan.weights,
        splits=splits,
        stages=list(stages.values()),
        needs=_estimates(plan),
        states=sum(need for need in plan.needs.values() if isinstance(need, int)),
        store=store.address,
        forecast=quick_forecast(plan),
        notes=list(
            dict.fromkeys(
                [*plan.notes, *(before.notes() or settled.sentences), *damaged, *design_notes(plan)]
            )
        ),
    )


class _Before:
    """Looks at the stages that decide what a config leaves open, and makes none.

    Attributes:
        stages: what a run would do with them, by key.
        missing: those that the store lacks.
    """

    def __init__(self, address: str) -> None:
        self.stages: dict[str, PlannedStage] = {}
        self.missing: list[Stage] = []
        self._store = Store(address, write=False)

    def __call__(self, plan: Plan) -> Store:
        refuse_what_cannot_fit(plan)
        missing, _ = missing_stages(plan, self._store, repair=False)
        self.missing += missing
        self.stages |= _planned(plan, missing, self._store)
        return self._store

    def notes(self) -> list[str]:
        """Say what the stages of the run itself still hang on."""
        if not self.missing:
            return []
        return [
            "what the run trains is not decided yet: its teachers and students are shown with the "
            "first of the values that are searched, and with teacher.epochs as given, until the "
            f"{counted(len(self.missing), 'stage')} before them are made"
        ]


def _estimates(plan: Plan) -> list[StageMemory]:
    """Return what the trainings need; seeds, which need the same, are merged."""
    found: list[StageMemory] = []
    for stage in plan.stages:
        need = plan.needs.get(stage.key)
        if isinstance(need, MemoryEstimate):
            found.append(StageMemory(stage.label.partition(" seed ")[0], need))
    return list(dict.fromkeys(found))


def _planned(plan: Plan, missing: list[Stage], store: Store) -> dict[str, PlannedStage]:
    """Return what a run would do with each stage of a plan, by key."""
    make, have = {stage.key for stage in missing}, {key for _, key in store.have(plan.stages)}
    found = {}
    for stage in plan.stages:
        state = TO_MAKE if stage.key in make else STORED if stage.key in have else NOT_NEEDED
        steps = None
        if isinstance(stage, TeacherStage | StudentStage):
            steps = total_steps(stage, plan.data[stage.data])
        found[stage.key] = PlannedStage(stage.kind, stage.label, stage.key, state, steps)
    return found


def render(found: DryRun) -> Group:
    """Render the stages as a table (evaluations merged), with models, data, store and notes."""
    make = [stage for stage in found.stages if stage.state == TO_MAKE]
    steps = sum(stage.steps or 0 for stage in make)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stage")
    table.add_column("state")
    table.add_column("steps", justify="right")
    for label, state, steps_of in _rows(found.stages):
        table.add_row(Text(label), state, f"{steps_of:,}" if steps_of else "")
    evaluations = Counter(stage.state for stage in found.stages if stage.kind == "evaluate")
    for state, count in evaluations.items():
        table.add_row(f"{count} evaluations on test", state, "")
    below = [
        f"{len(make)} of {len(found.stages)} stages to make, {steps:,} training steps in all",
        *(_model(role, model, found.weights) for role, model in found.models.items()),
        *dict.fromkeys(map(_sizes, found.splits)),
        *([f"teacher states on disk: {size(found.states)}"] if found.states else []),
        f"store: {found.store}",
        *([f"forecast: {found.forecast.sentence()}"] if found.forecast else []),
        *(f"note: {note}" for note in found.notes),
        "nothing was made yet; run it without --dry-run to start",
    ]
    tables = [table, _memory(found.needs)] if found.needs else [table]
    return Group(*tables, Text("\n".join(below)))


def _rows(stages: list[PlannedStage]) -> list[tuple[str, str, int | None]]:
    """Return label, state and steps of all stages but evaluations; the parts of a teacher's states
    are merged."""
    rows: dict[tuple[str, str], list[PlannedStage]] = {}
    for stage in stages:
        if stage.kind != "evaluate":
            name = stage.label.partition(", ")[0] if stage.kind == "states" else stage.label
            rows.setdefault((name, stage.state), []).append(stage)
    return [
        (f"{name}, {len(same)} parts" if len(same) > 1 else same[0].label, state, same[0].steps)
        for (name, state), same in rows.items()
    ]


def _model(role: str, name: str, weights: dict[str, Weights]) -> str:
    # The files of a teacher that no method needs are not read.
    known = weights.get(name)
    return f"{role}: {name}" + (f" (from its files: {known.words()})" if known else "")


def _sizes(splits: dict[str, int]) -> str:
    return "examples: " + ", ".join(f"{name} {number:,}" for name, number in splits.items())


def _memory(needs: list[StageMemory]) -> Table:
    """Return a table of about how much each worker of a training needs."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("a worker of")
    names = ("weights", "gradients", "optimizer", "activations", "peak")
    for name in (*names, "sent"):
        table.add_column(name, justify="right")
    for estimate in needs:
        sizes = [size(getattr(estimate.need, name)) for name in names]
        sent = estimate.need.communication
        table.add_row(Text(estimate.stage), *sizes, size(sent) if sent else "")
    return table
