"""The run config: typed, without unknown keys; all errors are reported at once, by dotted key."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from knife.config.ablations import ablations
from knife.config.columns import Columns
from knife.config.facts import Facts
from knife.config.lora import Lora
from knife.config.methods import Internalize, Method, Prompt, StepByStep
from knife.config.overrides import Overrides, merge, read_overrides, read_yaml
from knife.config.scale import Scale
from knife.config.search import Searches, checked_searches, with_searches, without_searches
from knife.config.section import ConfigSection
from knife.config.section_errors import section_errors
from knife.config.track import Track
from knife.config.write import Write
from knife.core.errors import UserError, nearest, raise_errors

InputTokens = Literal["all", "content", "mean", "words"]
Layers = Literal["last", "all", "uniform"] | list[tuple[int, int]]
Share = Annotated[float, Field(ge=0, le=1)]


class World(ConfigSection):
    """Size of the embedded world (`data.source: creatures`), determined by `seed`.

    `cue` is the share of questions that state the facts themselves; `which` is the share of
    two-way "which one" questions among the yes/no ones.
    """

    creatures: int = Field(64, ge=4, le=64)
    train: int = Field(2000, ge=1)
    dev: int = Field(200, ge=1)
    test: int = Field(400, ge=1)
    cue: Share = 0.5
    which: Share = 0.0
    seed: int = 0


class Data(ConfigSection):
    """The dataset. `columns` says which columns of a table are what. `faulty` is whether rows with
    errors stop the run, or are left out up to a share of them, by default 5 %: refuse, skip or
    skip:SHARE. `rationale` is how rationales are treated: given, shuffled, dropped:SHARE,
    truncated:SHARE, unleaked:SHARE (words that tell the answer are masked until a regression finds
    at most that share of it), unrepeated (without texts that many examples have) or none.
    `max_tokens` limits task input and rationale together; of an example whose task input alone is
    longer, `too_long` is what becomes: refuse (the run stops), drop, or cut:COLUMN, which shortens
    the text of a column of the question. `world` is the size of creatures, `facts` that of
    half-real worlds."""

    source: str
    columns: Columns | None = None
    faulty: str = "refuse"
    fraction: float = Field(1.0, gt=0, le=1)
    split_seed: int = 0
    rationale: str = "given"
    max_tokens: int = Field(256, ge=8)
    too_long: str = "refuse"
    world: World = World()
    facts: Facts = Facts()

    @field_validator("faulty")
    @classmethod
    def _skipped(cls, value: str) -> str:
        if value in ("refuse", "skip") or re.fullmatch(r"skip:(0?\.\d+|1|1\.0)", value):
            return value
        raise ValueError(
            f"must be refuse, skip or skip:SHARE with a SHARE from 0 to 1, but got {value!r}"
        )

    @property
    def faulty_share(self) -> float | None:
        """The largest share of a file's rows that may be left out; None to refuse all faults."""
        if self.faulty == "refuse":
            return None
        return float(self.faulty.partition(":")[2] or 0.05)

    @field_validator("too_long")
    @classmethod
    def _cut(cls, value: str) -> str:
        if value in ("refuse", "drop") or re.fullmatch(r"cut:\S(.*\S)?", value):
            return value
        raise ValueError(f"must be refuse, drop or cut:COLUMN, but got {value!r}")

    @property
    def cut(self) -> str | None:
        """The column of the question that is cut if a task input is too long, or None."""
        return self.too_long.partition(":")[2] or None

    @field_validator("rationale")
    @classmethod
    def _treatment(cls, value: str) -> str:
        if value in ("given", "shuffled", "none", "unrepeated"):
            return value
        kind, _, share = value.partition(":")
        shared = ("dropped", "truncated", "unleaked")
        if kind in shared and re.fullmatch(r"0?\.\d+|[01]|1\.0|0\.0", share):
            return value
        raise ValueError(
            "must be given, shuffled, none, unrepeated, dropped:SHARE, truncated:SHARE or "
            f"unleaked:SHARE with a SHARE from 0 to 1, but got {value!r}"
        )


class Model(ConfigSection):
    """Hub ids, local folders, or models that ship with the package: `tiny-t5`, `tiny-bert`,
    `tiny-llama`, and with its extra `minilm`."""

    teacher: str
    student: str


class InputAlignment(ConfigSection):
    """KD-In: distance between student and teacher hidden states at task-input positions.

    `layers` is the layer map: `last`, `all` (equal depths), `uniform` (spread over the teacher's),
    or pairs [student layer, teacher layer], counted from 1. `scaled_mse` is MSE divided by the
    variance of the teacher's states, `layer_norm_mse` MSE of layer-normalised states. `tokens` are
    all task-input tokens, those that carry content, the mean over all, or the mean over those of
    each word; models with unlike tokenizers need `mean` or `words`. See docs/alignment.md.
    """

    weight: float = Field(30.0, ge=0)
    layers: Layers = "last"
    distance: Literal["scaled_mse", "mse", "cosine", "layer_norm_mse"] = "scaled_mse"
    tokens: InputTokens = "all"


class OutputAlignment(ConfigSection):
    """KD-Out: MSE between answer-side states, or KL between choice distributions."""

    weight: float = Field(0.0, ge=0)
    target: Literal["states", "choices"] = "states"


class Align(ConfigSection):
    """Alignment of student and teacher. `states` is whether the teacher's states are computed
    once and stored, or in every step by an online teacher."""

    input: InputAlignment = InputAlignment()
    output: OutputAlignment = OutputAlignment()
    states: Literal["stored", "online"] = "stored"
    states_precision: Literal["fp32", "bf16"] = "fp32"


class Training(ConfigSection):
    """How a model is trained: AdamW, linear warm-up over a share of the steps, linear decay.

    `batch_size` is global: it is split over workers and accumulation steps. `patience` is the
    number of dev evaluations without improvement before training stops; null trains to the end.
    With `lora`, the model gets low-rank adapters, which are merged into its weights at the end.
    """

    epochs: int = Field(10, ge=1)
    learning_rate: float = Field(3e-4, gt=0)
    batch_size: int = Field(32, ge=1)
    accumulate: int = Field(1, ge=1)
    warmup: Share = 0.05
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0)
    evaluate_epochs: int = Field(1, ge=1)
    patience: int | None = Field(None, ge=1)
    lora: Lora | None = None

    @model_validator(mode="after")
    def _single_precision(self) -> "Training":
        # AdamW multiplies the learning rate by the weight decay, and in its first step by 10.
        if self.learning_rate * max(self.weight_decay, 10) > 3.4e38:
            raise ValueError(
                "learning_rate and weight_decay must be numbers that AdamW can multiply in single "
                f"precision, but got {self.learning_rate:g} and {self.weight_decay:g}"
            )
        return self


class Gate(ConfigSection):
    """The least share of the dev examples with a rationale that a teacher must answer right with
    it. Below, `warn` says so, and `train` trains it anew: with twice the epochs, then with four
    times as many."""

    right: float = Field(0.9, gt=0, le=1)
    below: Literal["warn", "train"] = "warn"


class TeacherTraining(Training):
    """The teacher's training; one teacher serves all seeds of a run. `gate` is what it must
    reach before students learn from it."""

    bottleneck: bool = True
    seed: int = 0
    gate: Gate | None = None


# These names are used for folders, with a key appended, and for MLflow's metrics and runs.
NAME_LETTERS = 128


class Compare(ConfigSection):
    """The baseline that methods are compared with; null is finetune, or else the first method.
    A method that is at most `margin` points below counts as not worse. A run that cannot show a
    `difference` of that many points reports it before it starts."""

    baseline: str | None = None
    margin: float = Field(2.0, gt=0, lt=100)
    difference: float | None = Field(None, gt=0, lt=100)


class Variant(ConfigSection):
    """A method under its own name, with changes to the run's config that apply to it alone.

    For example, an ablation: `{name: shuffled, method: knife, data: {rationale: shuffled}}`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=NAME_LETTERS)
    method: Method
    data: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    align: dict[str, Any] = Field(default_factory=dict)
    teacher: dict[str, Any] = Field(default_factory=dict)
    student: dict[str, Any] = Field(default_factory=dict)
    prompt: dict[str, Any] = Field(default_factory=dict)
    step_by_step: dict[str, Any] = Field(default_factory=dict)
    internalize: dict[str, Any] = Field(default_factory=dict)


# All keys of a variant that change the run's config.
VARIANT_PARTS = tuple(name for name in Variant.model_fields if name not in ("name", "method"))


class RunConfig(ConfigSection):
    """One run: the stages that its methods and seeds need; `ablate` adds the ablations of knife.
    `write` is for `knife data write` alone. `search` has the values of keys that are given as
    `{search: [VALUE, …]}`, whose first value is the key's own; a dump has them as they were given.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=NAME_LETTERS)
    data: Data
    model: Model
    methods: list[Method | Variant] = Field(["finetune", "knife"], min_length=1)
    ablate: bool = False
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    align: Align = Align()
    teacher: TeacherTraining = TeacherTraining()
    student: Training = Training()
    prompt: Prompt = Prompt()
    step_by_step: StepByStep = StepByStep()
    internalize: Internalize = Internalize()
    compare: Compare = Compare()
    scale: Scale = Scale()
    track: Track | None = Track()
    write: Write | None = None
    store: str = "./knife-store"
    search: Searches = Field(default_factory=dict, exclude=True)

    @model_serializer(mode="wrap")
    def _as_given(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return with_searches(values(self), self.search)

    @field_validator("search", mode="before")
    @classmethod
    def _no_section(cls, value: object) -> object:
        raise ValueError(
            "is no section: give a key of student or align {search: [VALUE, VALUE, …]} as its "
            f"value, but got {value!r}"
        )

    @field_validator("methods", mode="before")
    @classmethod
    def _known_methods(cls, value: object) -> object:
        known = get_args(Method)
        names = [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
        unknown = [f"{n!r} ({nearest(n, known)})" for n in names if n not in known]
        if unknown:
            raise ValueError(f"must be names of methods, but got {', '.join(unknown)}")
        return value

    def variants(self) -> list[Variant]:
        """Return the methods as variants; a plain method is a variant without changes.

        The ablations of `ablate` come last; one that equals `knife` as configured is left out.
        """
        own = [m if isinstance(m, Variant) else Variant(name=m, method=m) for m in self.methods]
        return own + (self._ablations() if self.ablate and "knife" in self.methods else [])

    def _ablations(self) -> list[Variant]:
        plain = self.model_dump()
        align = plain["align"]
        changes = ablations(align["input"]["weight"], align["output"]["weight"])
        return [
            Variant(name=name, method="knife", **change)
            for name, change in changes.items()
            if merge(plain, change) != plain
        ]

    def of(self, variant: Variant) -> "RunConfig":
        """Return this config for the variant alone, with its changes merged in: its `search` has
        what the variant searches.

        Raises:
            UserError: with the dotted key of every invalid change.
        """
        changes: dict[str, Any] = {part: getattr(variant, part) for part in VARIANT_PARTS}
        changes |= {"methods": [variant.method], "ablate": False, "compare": {"baseline": None}}
        return parse(merge(self.model_dump(), changes), f"methods.{variant.name}.")


def read(path: Path, overrides: Overrides | None = None) -> RunConfig:
    """Read a run config from a YAML file and apply overrides to it.

    Raises:
        UserError: with every error in file and overrides, each by its dotted key.
    """
    return parse(merge(read_yaml(path), read_overrides(overrides or [])))


def parse(values: dict[str, Any], prefix: str = "") -> RunConfig:
    """Validate `values` as a run config, and each value of a key that is searched; `prefix` is put
    before every key in a message.

    Raises:
        UserError: with every error at once.
    """
    first, given = without_searches(values)
    errors: list[str] = []

    def checked(tried: dict[str, Any]) -> RunConfig | None:
        try:
            return _validated(tried, prefix)
        except UserError as error:
            errors.extend(error.errors)
            return None

    config = checked(first)
    search, twice = checked_searches(first, given, checked)
    raise_errors(dict.fromkeys([*errors, *(prefix + error for error in twice)]))
    assert config
    return config.model_copy(update={"search": search})


def _validated(values: dict[str, Any], prefix: str) -> RunConfig:
    """Return the run config of values of which none is searched.

    Raises:
        UserError: with every error at once.
    """
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(*section_errors(RunConfig, error, prefix)) from None
    raise_errors(prefix + message for message in _impossible(config))
    return config


def _impossible(config: RunConfig) -> list[str]:
    """Return errors for values that are valid individually but not in combination."""
    names = [variant.name for variant in config.variants()]
    own = len(config.methods)
    errors = [
        f"methods: {n!r} is given twice"
        + ("; ablate: true adds one of that name, so leave it out" if n in names[own:] else "")
        for n in dict.fromkeys(names)
        if names.count(n) > 1
    ]
    if config.ablate and "knife" not in config.methods:
        errors.append("ablate: needs knife, whose parts it removes; add it to methods")
    seeds = config.seeds
    errors += [f"seeds: {s} is given twice" for s in dict.fromkeys(seeds) if seeds.count(s) > 1]
    aligned = config.align.input.weight or config.align.output.weight
    if not aligned and any(m == "knife" for m in config.methods):
        errors.append(
            "align: knife with both weights 0 is finetune; set align.input.weight or "
            "align.output.weight above 0"
        )
    baseline = config.compare.baseline
    if baseline is not None and baseline not in names:
        errors.append(
            f"compare.baseline: {baseline!r} is not in methods; {nearest(baseline, names)}"
        )
    if config.scale.workers > 1 and config.scale.gpus_per_worker % 1:
        errors.append(
            "scale.gpus_per_worker: workers of one group cannot share a GPU (NCCL); "
            f"must be 0 or 1 for {config.scale.workers} workers, but got "
            f"{config.scale.gpus_per_worker:g}"
        )
    if config.scale.launcher == "process" and config.scale.workers > 1:
        errors.append("scale.workers: launcher 'process' has one worker; use launcher 'ray'")
    if config.scale.min_workers is not None and config.scale.min_workers > config.scale.workers:
        errors.append(
            f"scale.min_workers: must be at most scale.workers = {config.scale.workers}, but got "
            f"{config.scale.min_workers}"
        )
    return errors + _variant_errors(config, errors)


def _variant_errors(config: RunConfig, said: list[str]) -> list[str]:
    """Return the errors that variants add to those `said` about the run's own values."""
    errors = []
    for variant in config.variants():
        if any(getattr(variant, part) for part in VARIANT_PARTS):
            try:
                config.of(variant)
            except UserError as error:
                start = f"methods.{variant.name}."
                errors += [f for f in error.errors if f.removeprefix(start) not in said]
    return errors
