"""The stages that a run needs, in order, and those of them that are still to be made."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knife.cluster.capacity import batch_errors, place_errors
from knife.config.methods import TEACHES
from knife.config.run import Data, RunConfig, Variant
from knife.core.errors import UserError, raise_errors
from knife.data.digest import split_digest
from knife.data.example import Splits
from knife.data.examples import explained_count
from knife.data.written import read_written, written_notes
from knife.method.layers import layer_map
from knife.models.families import reader_config
from knife.models.weights import Weights
from knife.plan.adapters import adapter_errors
from knife.plan.memory import MemoryEstimate
from knife.plan.needs import stage_needs
from knife.plan.prepared import Prepared, data_key
from knife.plan.scale import scale_errors
from knife.plan.sources import SourceReader
from knife.plan.stage import EvaluateStage, Stage, StatesStage, StudentStage, TeacherStage, inputs
from knife.plan.stages import StageMaker
from knife.stats.power import design_note
from knife.store.store import fingerprint, store_errors, store_root


@dataclass(frozen=True)
class Member:
    """One method (or variant) and seed of a run, with its stages."""

    method: str
    seed: int
    student: StudentStage
    evaluate: EvaluateStage


@dataclass
class Plan:
    """A run as stages.

    Attributes:
        config: the resolved config.
        key: fingerprint of all results of the run, and of what it decides on dev.
        stages: all stages without duplicates, each after those it reads.
        members: what the verdict is based on.
        teacher: the run's own teacher, if a method needs one.
        ceiling: its evaluations on the test split, `with` and `without` rationales.
        data: the splits by data key, with treated rationales.
        written: by data key, the record of those that a language model wrote.
        prepared: where these, and their tokens, are on this host.
        weights: where the parameters of each model come from, by the model's name.
        needs: what stages need, by key: a worker's memory, or the states' bytes on disk.
        notes: what a user should know, one sentence each.
    """

    config: RunConfig
    key: str = ""
    stages: list[Stage] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    teacher: TeacherStage | None = None
    ceiling: dict[str, EvaluateStage] = field(default_factory=dict)
    data: dict[str, Splits] = field(default_factory=dict)
    written: dict[str, dict[str, Any]] = field(default_factory=dict)
    prepared: Prepared | None = None
    weights: dict[str, Weights] = field(default_factory=dict)
    needs: dict[str, MemoryEstimate | int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The folder of this host for the run's config, verdict and report."""
        return store_root(self.config.store) / "runs" / f"{self.config.name}-{self.key}"


def plan_run(
    config: RunConfig, reader: SourceReader | None = None, *, elsewhere: bool = False
) -> Plan:
    """Read the data, check the models and determine all stages.

    A `reader` that other plans have used reads nothing again. With `elsewhere`, the run is for
    other machines, so the CPUs and GPUs of this one are not checked.

    Raises:
        UserError: with all errors in data, models, scale, store and settings that can be found
            before a start.
    """
    plan = Plan(config)
    errors = batch_errors(config) + store_errors(config.store)
    errors += [] if elsewhere else place_errors(config)
    reader = reader or SourceReader()
    with reader.planning(config):
        for variant in config.variants():
            try:
                _add_variant(plan, variant, reader, elsewhere=elsewhere)
            except UserError as error:
                errors += error.errors
    plan.prepared = reader.prepared(config)
    raise_errors(dict.fromkeys(errors))
    tests = {split_digest(s, "test", rationales=False) for s in plan.data.values()}
    if len(tests) > 1:
        raise UserError(
            "methods: a variant changes the test split, so that methods could not be compared; "
            "make it a separate run"
        )
    if config.compare.difference:
        plan.notes += design_notes(plan)
    order = {"teacher": 0, "states": 1, "student": 2, "evaluate": 2}
    unique = {(stage.kind, stage.key): stage for stage in plan.stages}
    plan.stages = sorted(unique.values(), key=lambda stage: order[stage.kind])
    members = [[m.method, m.seed, m.student.key, m.evaluate.key] for m in plan.members]
    plan.key = fingerprint({"name": config.name, "members": members} | _undecided(config))
    plan.notes = list(dict.fromkeys(plan.notes))
    return plan


def _undecided(config: RunConfig) -> dict[str, Any]:
    """Return what a run decides on dev, by method: its own settings, and how long teachers are
    trained. Nothing if the config leaves nothing open."""
    found = {}
    for variant in config.variants():
        own = config.of(variant)
        gate = own.teacher.gate if variant.method in TEACHES else None
        if own.search or gate:
            found[variant.name] = [own.search, gate and gate.model_dump(mode="json")]
    return {"open": found} if found else {}


def design_notes(plan: Plan) -> list[str]:
    """State what differences a run of several methods can show, or why not the wanted one."""
    if len(plan.config.variants()) < 2:
        return []
    tests = [len(splits.test) for splits in plan.data.values()]
    return design_note(len(plan.config.seeds), min(tests), plan.config.compare.difference)


def needed(stages: Iterable[Stage], have: set[tuple[str, str]]) -> list[Stage]:
    """Return the stages to make, given the existing artifacts: students, evaluations and what no
    other stage reads, and of the others only those that these still read."""
    by_key = {(stage.kind, stage.key): stage for stage in stages}
    read = {artifact for stage in by_key.values() for artifact in inputs(stage)}
    wanted: dict[tuple[str, str], Stage] = {}

    def want(artifact: tuple[str, str]) -> None:
        if artifact not in have and artifact not in wanted:
            wanted[artifact] = by_key[artifact]
            for other in inputs(by_key[artifact]):
                want(other)

    for artifact in by_key:
        if artifact[0] == "student" or artifact not in read:
            want(artifact)
    return [stage for artifact, stage in by_key.items() if artifact in wanted]


def _add_variant(plan: Plan, variant: Variant, reader: SourceReader, *, elsewhere: bool) -> None:
    config = plan.config.of(variant)
    sources = reader.read(config, variant)
    plan.notes += sources.notes
    known = {"model.student": sources.student, "model.teacher": sources.teacher}
    trained = {"teacher": sources.teacher, "student": sources.student}
    if variant.method == "prompt":
        del trained["student"]
    raise_errors(
        scale_errors(config.scale, known, elsewhere=elsewhere)
        + adapter_errors(config, trained, reader.prepared(config))
    )
    plan.weights |= {model.source.name: model.weights for model in known.values() if model}
    plan.data[data_key(sources.splits)] = sources.splits
    _add_written(plan, config.data, sources.splits)
    own = any((variant.data, variant.model, variant.teacher))
    maker = StageMaker(config, variant, sources, own)
    teacher = None
    states: list[StatesStage] = []
    pairs: list[tuple[int, int]] = []
    if sources.teacher:
        teacher = maker.teacher()
        plan.stages.append(teacher)
        if not own and plan.teacher is None:
            plan.teacher = teacher
            _add_ceiling(plan, maker, teacher)
    if variant.method == "knife":
        assert teacher
        assert sources.teacher
        readers = (reader_config(m.config) for m in (sources.student, sources.teacher))
        depths = (reader.num_hidden_layers for reader in readers)
        pairs = layer_map(config.align.input.layers, *depths)
        if not config.align.input.weight:
            pairs = []
        states = maker.states(teacher, pairs)
        plan.stages += states
    made: list[Stage] = [*([teacher] if teacher else []), *states]
    for seed in config.seeds:
        student = maker.student(seed, teacher, states, pairs)
        evaluate = maker.evaluate(student, f"test {student.label}", rationale=False)
        plan.stages += [student, evaluate]
        made.append(student)
        plan.members.append(Member(variant.name, seed, student, evaluate))
    plan.needs |= stage_needs(config, sources, made)


def _add_written(plan: Plan, data: Data, splits: Splits) -> None:
    """Say where rationales are from that a language model wrote, if any are left of them."""
    record = read_written(data.source)
    if record and data.rationale != "none":
        plan.written[data_key(splits)] = record
        plan.notes += written_notes(record)


def _add_ceiling(plan: Plan, maker: StageMaker, teacher: TeacherStage) -> None:
    """Add the teacher's evaluations on test without rationales and, if it has any, with them."""
    label = "test teacher without rationales"
    plan.ceiling["without"] = maker.evaluate(teacher, label, rationale=False)
    if explained_count(maker.sources.splits.test):
        plan.ceiling["with"] = maker.evaluate(teacher, "test teacher", rationale=True)
    plan.stages += plan.ceiling.values()
