"""Which stages a run needs: every config key that a result hangs on becomes part of its key."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from knife.config import Data, RunConfig, Variant
from knife.data.check import rationale_faults
from knife.data.digest import digest
from knife.data.example import Example, Splits
from knife.data.source import load_source
from knife.data.subset import subset
from knife.data.treatment import treat
from knife.errors import UserError, raise_faults
from knife.method.alignment import layer_map
from knife.method.backbone import load_tokenizer, model_config
from knife.method.model_source import ModelSource, find_model
from knife.store import fingerprint
from knife.train.stage import EvaluateStage, Stage, StatesStage, StudentStage, TeacherStage

# Raised when a change of the code changes the numbers that a stage comes to.
METHOD_VERSION = 1


@dataclass(frozen=True)
class Member:
    """One method (or variant) and seed of a run, with the stages that make it."""

    method: str
    seed: int
    student: StudentStage
    evaluate: EvaluateStage


@dataclass
class Plan:
    """A run as stages.

    Attributes:
        config: the resolved config.
        key: fingerprint of all results of the run.
        stages: every stage, each after what it reads; none twice.
        members: what the verdict is made of.
        teacher: the run's own teacher, where a method needs one.
        ceiling: its evaluations on the test split, `with` and `without` rationales.
        data: the splits by data key, rationales treated.
        notes: what a user should know, one sentence each.
    """

    config: RunConfig
    key: str = ""
    stages: list[Stage] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    teacher: TeacherStage | None = None
    ceiling: dict[str, EvaluateStage] = field(default_factory=dict)
    data: dict[str, Splits] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def plan_run(config: RunConfig) -> Plan:
    """Read the data, look at the models and work out every stage.

    Raises:
        UserError: with all faults of data, models and settings that can be found before a start.
    """
    plan = Plan(config)
    faults: list[str] = []
    for variant in config.variants():
        try:
            _add_variant(plan, variant)
        except UserError as error:
            faults += error.faults
    raise_faults(dict.fromkeys(faults))
    tests = {digest(s.test, rationales=False) for s in plan.data.values()}
    if len(tests) > 1:
        raise UserError(
            "methods: a variant changes the test split, so that methods could not be compared; "
            "make it a run of its own"
        )
    order = {"teacher": 0, "states": 1, "student": 2, "evaluate": 2}
    unique = {(stage.kind, stage.key): stage for stage in plan.stages}
    plan.stages = sorted(unique.values(), key=lambda stage: order[stage.kind])
    members = [[m.method, m.seed, m.student.key, m.evaluate.key] for m in plan.members]
    plan.key = fingerprint({"name": config.name, "members": members})
    plan.notes = list(dict.fromkeys(plan.notes))
    return plan


def needed(stages: Iterable[Stage], have: set[tuple[str, str]]) -> list[Stage]:
    """The stages to make, given the artifacts that are there: students, evaluations, and of the
    others only what those still read."""
    by_key = {(stage.kind, stage.key): stage for stage in stages}
    wanted: dict[tuple[str, str], Stage] = {}

    def want(place: tuple[str, str]) -> None:
        if place not in have and place not in wanted:
            wanted[place] = by_key[place]
            for other in inputs(by_key[place]):
                want(other)

    for stage in by_key.values():
        if stage.kind in ("student", "evaluate"):
            want((stage.kind, stage.key))
    return [stage for place, stage in by_key.items() if place in wanted]


def inputs(stage: Stage) -> list[tuple[str, str]]:
    """Kind and key of the artifacts that a stage reads, data aside."""
    match stage:
        case StatesStage():
            return [("teacher", stage.teacher)]
        case StudentStage():
            teacher = [("teacher", stage.teacher)] if stage.teacher else []
            return teacher + ([("states", stage.states)] if stage.states else [])
        case EvaluateStage():
            return [(stage.model_kind, stage.model_key)]
    return []


def _add_variant(plan: Plan, variant: Variant) -> None:
    config = plan.config.of(variant)
    teaches = variant.method != "finetune"
    splits = _treated(config.data.model_dump_json(), teaches)
    plan.notes += splits.notes
    own = any((variant.data, variant.model, variant.teacher))
    faults: list[str] = []
    student = _model(config.model.student, "model.student", faults)
    teacher = _model(config.model.teacher, "model.teacher", faults) if teaches else student
    raise_faults(faults)
    assert student is not None
    assert teacher is not None
    raise_faults(_pair_faults(config, variant, student, teacher))
    data = fingerprint(
        [digest(s, rationales=True) for s in (splits.train, splits.dev, splits.test)]
    )
    plan.data[data] = splits
    _check_tokens(plan, config, splits, student, teacher, teaches)
    shared: dict[str, Any] = {"data": data, "max_tokens": config.data.max_tokens}
    common = {
        "version": METHOD_VERSION,
        "libraries": {name: version(name) for name in ("torch", "transformers", "deepspeed")},
        "max_tokens": config.data.max_tokens,
        "precision": config.scale.precision,
    }
    teacher_stage = states_stage = None
    if teaches:
        teacher_stage = _teacher_stage(config, variant, own, teacher, splits, shared, common)
        plan.stages.append(teacher_stage)
        if not own and plan.teacher is None:
            plan.teacher = teacher_stage
            _add_ceiling(plan, teacher_stage, splits, shared)
    pairs: list[tuple[int, int]] = []
    if variant.method == "knife":
        assert teacher_stage is not None
        depths = (student.config.num_hidden_layers, teacher.config.num_hidden_layers)
        pairs = layer_map(config.align.input.layers, *depths)
        states_stage = _states_stage(config, variant, own, teacher_stage, splits, pairs, shared)
        plan.stages.append(states_stage)
    for seed in config.seeds:
        stage = _student_stage(
            config,
            variant,
            seed,
            student,
            splits,
            teacher_stage,
            states_stage,
            pairs,
            shared,
            common,
        )
        evaluate = _evaluate_stage(stage, splits, f"test {stage.label}", False, shared)
        plan.stages += [stage, evaluate]
        plan.members.append(Member(variant.name, seed, stage, evaluate))


@dataclass(frozen=True)
class _Known:
    """A model that was found, with its transformers config and tokenizer."""

    source: ModelSource
    config: Any
    tokenizer: Any


@lru_cache(maxsize=8)
def _known(name: str, key: str) -> _Known:
    source = find_model(name, key)
    return _Known(source, model_config(source.folder, key), load_tokenizer(source.folder, key))


def _model(name: str, key: str, faults: list[str]) -> _Known | None:
    try:
        return _known(name, key)
    except UserError as error:
        faults += error.faults
        return None


@lru_cache(maxsize=8)
def _loaded(settings: str) -> Splits:
    return load_source(Data.model_validate_json(settings))


@lru_cache(maxsize=8)
def _treated(settings: str, teaches: bool) -> Splits:
    """The splits as this run sees them: the fraction of train, rationales treated."""
    data = Data.model_validate_json(settings)
    plain = data.model_copy(update={"fraction": 1.0, "rationale": "given"})
    whole = _loaded(plain.model_dump_json())
    train = subset(whole.train, data.fraction, data.split_seed)
    train, dev, test = (
        treat(part, data.rationale, data.split_seed) for part in (train, whole.dev, whole.test)
    )
    if teaches:
        raise_faults(rationale_faults(train))
    return Splits(train, dev, test, whole.notes)


def _pair_faults(
    config: RunConfig, variant: Variant, student: _Known, teacher: _Known
) -> list[str]:
    """Faults of a teacher and a student that do not go together."""
    faults = []
    for name, model in (("student", student), ("teacher", teacher)):
        longest = getattr(model.config, "max_position_embeddings", None)
        if longest and not model.config.is_encoder_decoder and config.data.max_tokens > longest:
            faults.append(
                f"data.max_tokens: must be at most {longest}, the positions of model.{name}, "
                f"but got {config.data.max_tokens}"
            )
    if variant.method == "teacher_init" and student.source.identity != teacher.source.identity:
        faults.append(
            "methods: teacher_init starts from the teacher's weights, so model.student must be "
            f"the model of model.teacher, but got {student.source.name!r} and "
            f"{teacher.source.name!r}"
        )
    if student.config.is_encoder_decoder != teacher.config.is_encoder_decoder:
        faults.append(
            "model: teacher and student must both be encoder-decoders or both be encoders, but "
            f"got {teacher.config.model_type!r} and {student.config.model_type!r}"
        )
    return faults


def _check_tokens(
    plan: Plan,
    config: RunConfig,
    splits: Splits,
    student: _Known,
    teacher: _Known,
    teaches: bool,
) -> None:
    """Refuse task inputs that are too long and tokens that differ; note what is truncated."""
    from knife.data.tokens import tokenize

    limit = config.data.max_tokens
    everything = [*splits.train, *splits.dev, *splits.test]
    tokens, cut = tokenize(everything, student.tokenizer, limit)
    if not teaches:
        return
    if student.source.identity != teacher.source.identity:
        others, cut = tokenize(everything, teacher.tokenizer, limit)
        if any(a.input_ids != b.input_ids for a, b in zip(tokens, others, strict=True)):
            raise UserError(
                "model: teacher and student cut task inputs into different tokens, so their "
                "states cannot be aligned; give models with the same tokenizer"
            )
    if cut.rationales:
        plan.notes.append(
            f"{cut.rationales} rationales were cut to fit data.max_tokens={limit} "
            f"({cut.tokens} tokens in all); task inputs are never cut"
        )


def _label(variant: Variant, own: bool, kind: str) -> str:
    return f"{kind} of {variant.name}" if own else kind


def _teacher_stage(
    config: RunConfig,
    variant: Variant,
    own: bool,
    model: _Known,
    splits: Splits,
    shared: dict[str, Any],
    common: dict[str, Any],
) -> TeacherStage:
    training = config.teacher
    depends = common | {
        "stage": "teacher",
        "train": digest(splits.train, rationales=True),
        "dev": digest(splits.dev, rationales=True),
        "model": model.source.identity,
        "training": training.model_dump(),
    }
    return TeacherStage(
        key=fingerprint(depends),
        depends=depends,
        label=_label(variant, own, "teacher"),
        model=model.source,
        training=training,
        bottleneck=training.bottleneck,
        seed=training.seed,
        **shared,
    )


def _states_stage(
    config: RunConfig,
    variant: Variant,
    own: bool,
    teacher: TeacherStage,
    splits: Splits,
    pairs: list[tuple[int, int]],
    shared: dict[str, Any],
) -> StatesStage:
    align = config.align
    layers = tuple(sorted({layer for _, layer in pairs}))
    outputs = align.output.weight > 0 and align.output.target == "states"
    depends: dict[str, Any] = {
        "stage": "states",
        "teacher": teacher.key,
        "train": digest(splits.train, rationales=True),
        "layers": layers,
        "outputs": outputs,
        "precision": align.states_precision,
        "stored": align.states == "stored",
    }
    return StatesStage(
        key=fingerprint(depends),
        depends=depends,
        label=_label(variant, own, "states"),
        teacher=teacher.key,
        layers=layers,
        outputs=outputs,
        precision=align.states_precision,
        stored=align.states == "stored",
        **shared,
    )


def _student_stage(
    config: RunConfig,
    variant: Variant,
    seed: int,
    model: _Known,
    splits: Splits,
    teacher: TeacherStage | None,
    states: StatesStage | None,
    pairs: list[tuple[int, int]],
    shared: dict[str, Any],
    common: dict[str, Any],
) -> StudentStage:
    depends = common | {
        "stage": "student",
        "method": variant.method,
        "seed": seed,
        "train": digest(splits.train, rationales=False),
        "dev": digest(splits.dev, rationales=False),
        "model": model.source.identity,
        "training": config.student.model_dump(),
    }
    if variant.method == "teacher_init":
        assert teacher is not None
        depends["teacher"] = teacher.key
    if states is not None:
        weights = {"input": config.align.input.weight, "output": config.align.output.weight}
        depends |= {"states": states.key, "layers": pairs, "weights": weights}
        depends |= {"distance": config.align.input.distance} if weights["input"] else {}
        depends |= {"target": config.align.output.target} if weights["output"] else {}
    return StudentStage(
        key=fingerprint(depends),
        depends=depends,
        label=f"{variant.name} seed {seed}",
        method=variant.method,
        model=model.source,
        training=config.student,
        seed=seed,
        # With stored states a student never needs the teacher itself.
        teacher=teacher.key if teacher and not (states and states.stored) else None,
        states=states.key if states else None,
        align=config.align if states else None,
        layers=tuple(pairs),
        **shared,
    )


def _evaluate_stage(
    model: TeacherStage | StudentStage,
    splits: Splits,
    label: str,
    rationale: bool,
    shared: dict[str, Any],
) -> EvaluateStage:
    depends = {
        "stage": "evaluate",
        "model": model.key,
        "test": digest(splits.test, rationales=rationale),
        "rationale": rationale,
    }
    return EvaluateStage(
        key=fingerprint(depends),
        depends=depends,
        label=label,
        model_kind=model.kind,
        model_key=model.key,
        rationale=rationale,
        **shared,
    )


def _add_ceiling(plan: Plan, teacher: TeacherStage, splits: Splits, shared: dict[str, Any]) -> None:
    """The teacher on the test split without rationales and, where test has some, with them."""
    plan.ceiling["without"] = _evaluate_stage(
        teacher, splits, "test teacher without rationales", False, shared
    )
    if any(example.rationale for example in splits.test):
        plan.ceiling["with"] = _evaluate_stage(teacher, splits, "test teacher", True, shared)
    plan.stages += plan.ceiling.values()


def data_files(splits: Splits) -> dict[str, list[Example]]:
    """What the store keeps of a run's data, by file name."""
    return {"train": splits.train, "dev": splits.dev, "test": splits.test}


def store_folder(config: RunConfig) -> Path:
    """The artifact store's root."""
    return Path(config.store).expanduser().resolve()
