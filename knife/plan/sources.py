"""Reads data and models for a plan, each once, and reports their errors before anything starts."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, get_args

from knife.config.methods import READS_RATIONALES, TEACHES, WRITES
from knife.config.run import RunConfig, Variant
from knife.core.errors import UserError, raise_errors
from knife.data.check import rationale_errors
from knife.data.example import Splits
from knife.data.examples import Examples
from knife.data.fitting import fitted
from knife.data.forms import longest_rationale, training_tokens
from knife.data.internalize import Removal
from knife.data.source import load_source, source_state
from knife.data.token_table import longest_choice
from knife.data.tokenizing import Mark
from knife.data.tokens import answer_opening, answer_start, backend
from knife.data.treatment import used_splits
from knife.models.check import CheckedModel, check_model
from knife.models.families import family
from knife.models.positions import decoder_positions
from knife.models.quiet import quiet
from knife.models.self_test import self_test
from knife.models.source import EMBEDDED, ModelSource, find_model
from knife.models.tokenizer import can_generate
from knife.plan.demonstrations import demonstration_limit, with_demonstrations
from knife.plan.memory import Lengths, token_lengths
from knife.plan.model_size import ModelSize, model_size
from knife.plan.pair import pair_errors, truncation_notes
from knife.plan.prepared import Prepared, Tokenized, with_model
from knife.store.store import fingerprint


@dataclass(frozen=True, kw_only=True)
class KnownModel(CheckedModel):
    """A model that was found and passed all checks.

    Attributes:
        source: its files.
        size: its size; None if its files do not state it.
    """

    source: ModelSource
    size: ModelSize | None

    @property
    def values(self) -> dict[str, Any]:
        """The values of its config, which do not say where it came from."""
        values: dict[str, Any] = self.config.to_dict()
        values.pop("_name_or_path", None)
        return values


@dataclass(frozen=True)
class Sources:
    """The data and models of a variant of a run.

    Attributes:
        splits: the fraction of train, dev and test, with treated rationales.
        student, teacher: the models; the teacher is None if the method has none.
        tokens, teacher_tokens: keys of the splits' tokens for the student and for the teacher.
        lengths: lengths of the examples of train in the form that the student is trained on.
        teacher_lengths: their lengths as the teacher's tokens.
        demonstration_tokens: limit on demonstrations and task input together; 0 without any.
        notes: decisions that a user should know, one sentence each.
    """

    splits: Splits
    student: KnownModel
    teacher: KnownModel | None
    tokens: str
    teacher_tokens: str
    lengths: Lengths
    teacher_lengths: Lengths
    demonstration_tokens: int
    notes: list[str]


class SourceReader:
    """Reads data and models for the variants of plans, each only once."""

    def __init__(self) -> None:
        self._sources: dict[str, Sources] = {}
        # With the state of the source that was read; None if it changed meanwhile.
        self._whole: dict[str, tuple[object | None, Splits]] = {}
        self._several = self._teaches = False
        self._treated: dict[str, Splits] = {}
        self._models: dict[str, KnownModel] = {}
        self._prepared: dict[str, Prepared] = {}

    def read(self, config: RunConfig, variant: Variant) -> Sources:
        """Read the data and models of `variant`, whose config is `config`.

        Raises:
            UserError: with all errors in the data and the models.
        """
        parts = (config.data, config.model, config.prompt, config.align)
        # Seeds draw the demonstrations of a prompt.
        seeds = config.seeds if variant.method == "prompt" else None
        asked = [seeds, variant.method, self._teaches and config.data.too_long != "refuse"]
        known = fingerprint([*(p.model_dump() for p in parts), *asked])
        if known not in self._sources:
            self._sources[known] = self._read(config, variant)
        return self._sources[known]

    def prepared(self, config: RunConfig) -> Prepared:
        """Return where data and tokens of a config are kept on this host."""
        store = str(config.store)
        if store not in self._prepared:
            self._prepared[store] = Prepared(config.store)
        return self._prepared[store]

    def with_splits(self, config: RunConfig, sources: Sources, splits: Splits) -> Sources:
        """Return sources with other splits, for a teacher alone.

        Raises:
            UserError: the splits cannot be tokenized.
        """
        assert sources.teacher
        prepared = self.prepared(config)
        prepared.keep(splits)
        models, limit = {"model.teacher": sources.teacher}, config.data.max_tokens
        key = _tokens(prepared, splits, models, limit)["model.teacher"].key
        return replace(sources, splits=splits, tokens=key, teacher_tokens=key)

    @contextmanager
    def planning(self, config: RunConfig) -> Iterator[None]:
        """Keep whole sources in memory meanwhile if the variants use them in different ways, and
        fit examples to the teacher as well if one of the variants has one."""
        self._several = any(variant.data for variant in config.variants())
        self._teaches = any(variant.method in TEACHES for variant in config.variants())
        try:
            yield
        finally:
            self._whole.clear()

    def _read(self, config: RunConfig, variant: Variant) -> Sources:
        teaches = variant.method in TEACHES
        # Methods are compared on the same examples: those that fit both models.
        fits = config.data.too_long != "refuse"
        errors: list[str] = []
        splits = student = teacher = None
        try:
            student = self._model(config.model.student, "model.student")
        except UserError as error:
            errors += error.errors
        try:
            if teaches or (fits and self._teaches):
                teacher = self._model(config.model.teacher, "model.teacher")
        except UserError as error:
            errors += error.errors
        try:
            readers = [model for model in (student, teacher) if model] if fits and student else []
            splits = self._splits(config, variant.method, readers)
        except UserError as error:
            errors = error.errors + errors
        raise_errors(dict.fromkeys(errors))
        assert splits
        assert student
        teacher = teacher if teaches else None
        raise_errors(_model_errors(config, variant, splits, student, teacher))
        limit, method, tokenizer = config.data.max_tokens, variant.method, student.tokenizer
        models = {"model.student": student}
        # Of two equal models, the teacher's tokens are the student's.
        if teacher and teacher.source.identity != student.source.identity:
            models["model.teacher"] = teacher
        tokens = _tokens(self.prepared(config), splits, models, limit, _marks(config, method))
        own = tokens["model.student"]
        read = tokens.get("model.teacher", own)
        notes = truncation_notes(read, limit) if teacher else []
        notes += _part_notes(models)
        if teacher:
            errors += pair_errors(config, method, (student, own), (teacher, read))
        said: list[str] = []
        for key, model in models.items():
            facts, name = tokens[key].facts, f"tokenizer of {key}, {model.source.name}"
            errors += with_model([each for each in facts.errors if each not in said], name)
            notes += with_model([each for each in facts.notes if each not in said], name)
            said += facts.errors + facts.notes
        raise_errors(errors)
        plain = own.split("train")
        removal = None
        if method == "internalize":
            epochs = config.student.epochs
            removal = Removal.of(config.internalize, longest_rationale(plain), epochs)
            notes += filter(None, [removal.note(epochs)])
        train, second = training_tokens(method, plain, tokenizer, removal)
        lengths = own.facts.lengths if train is plain else token_lengths(train)
        answer = answer_room(student, max(own.facts.longest, lengths.choice))
        if method == "explain_then_answer":
            # The generated rationale may lack its closing token.
            answer += answer_room(student, own.facts.longest) + 1
        if second:
            word = len(second[0].input_ids) - len(plain[0].input_ids)
            answer = max(answer, answer_room(student, longest_choice(second)) + word)
        rooms = [("model.student", student, answer)]
        if teacher:
            rooms.append(("model.teacher", teacher, answer_room(teacher, read.facts.longest)))
        raise_errors(_position_errors(limit, rooms))
        # Last, since it takes what was checked before for granted.
        raise_errors(self._self_test_errors(config, student, teacher))
        after = _after_input(student, answer)
        most = demonstration_limit(config, method, student.positions, tokenizer, after)
        if most:
            # Methods with demonstrations train on examples in their original form.
            asked = [each for name in splits.parts for each in own.split(name)]
            asked, more = with_demonstrations(config, method, splits, asked, tokenizer, most)
            notes += more
            lengths = token_lengths(asked[: len(splits.train)])
        return Sources(
            splits=splits,
            student=student,
            teacher=teacher,
            tokens=own.key,
            teacher_tokens=read.key,
            lengths=lengths,
            teacher_lengths=read.facts.lengths,
            demonstration_tokens=most,
            notes=splits.notes + notes,
        )

    def _model(self, name: str, key: str) -> KnownModel:
        if name not in self._models:
            source = find_model(name, key)
            quiet()
            found = check_model(source.folder, key)
            size = model_size(found.config, source.folder)
            self._models[name] = KnownModel(**vars(found), source=source, size=size)
        return self._models[name]

    def _self_test_errors(
        self, config: RunConfig, student: KnownModel, teacher: KnownModel | None
    ) -> list[str]:
        """Return errors for models of a kind that does not compute what is taken for granted."""
        errors = []
        for name, model in (("student", student), ("teacher", teacher)):
            # Those of the package have tests of their own.
            if model is None or model.source.name in EMBEDDED:
                continue
            limit = config.data.max_tokens
            failures = self.prepared(config).failures(
                [model.values, limit], partial(self_test, model.config, model.tokenizer, limit)
            )
            errors += [
                f"model.{name}: {model.config.model_type!r} models cannot be used: {failure}"
                for failure in failures
            ]
        return errors

    def _splits(self, config: RunConfig, method: str, readers: Sequence[KnownModel]) -> Splits:
        """Read the splits; what is too long for one of `readers` is left out or cut."""
        data = config.data
        source = data.model_dump_json(exclude={"fraction", "rationale", "max_tokens", "too_long"})
        # Where what may be cut is in the questions, is read with them.
        source += data.cut or ""
        identities = [model.source.identity for model in readers]
        fit = [identities, data.max_tokens, data.too_long] if readers else None
        known = fingerprint([source, data.fraction, data.rationale, fit])
        if known not in self._treated:
            kept = self._whole.get(source)
            state = kept[0] if kept else source_state(data)
            request = None if state is None else [state, data.model_dump_json(), fit]

            def make() -> tuple[Splits, bool]:
                found = kept
                if found is None:
                    whole = load_source(data)
                    # What was edited meanwhile may have been read before or after that.
                    found = (state if source_state(data) == state else None, whole)
                    if self._several:
                        self._whole[source] = found
                same, whole = found
                if readers:
                    # Equal tokenizers make the same tokens.
                    each = {backend(m.tokenizer).to_str(): m.tokenizer for m in readers}
                    whole = fitted(whole, list(each.values()), data)
                return used_splits(whole, data), same is not None

            self._treated[known] = self.prepared(config).splits(request, make)
        splits = self._treated[known]
        if method in TEACHES | READS_RATIONALES - {"retrieve"}:
            raise_errors(rationale_errors(splits.train, method))
        return splits


def _model_errors(
    config: RunConfig,
    variant: Variant,
    splits: Splits,
    student: KnownModel,
    teacher: KnownModel | None,
) -> list[str]:
    """Return errors for models that do not suit the data, the method or each other."""
    errors: list[str] = []
    silent = [
        (f"model.{name}", "an encoder" if family(model.config) == "encoder" else "an mBART")
        for name, model in (("student", student), ("teacher", teacher))
        if model and not can_generate(model.config)
    ]
    for key, what in silent:
        if splits.train[0].open:
            errors.append(
                f"data.source: has open questions, whose answers are generated, but {key} is "
                f"{what}, which cannot generate; use an encoder-decoder or a decoder-only model"
            )
        elif variant.method in WRITES and key == "model.student":
            errors.append(
                f"methods: students of {variant.method} generate text, but {key} is {what}, which "
                "cannot; use an encoder-decoder or a decoder-only model, or leave the method "
                "out"
            )
    if teacher is None:
        return errors
    if config.align.states == "online" and Examples.of(splits.train).most_rationales > 1:
        errors.append(
            "align.states: must be stored, because some examples have several rationales "
            "(more_rationales), and states are the means over these; an online teacher reads one"
        )
    output = config.align.output
    opened = variant.method == "knife" and splits.train[0].open
    if opened and output.weight and output.target == "choices":
        errors.append(
            "align.output.target: must be states, because an open question has no choices whose "
            "probabilities could be aligned"
        )
    if variant.method == "teacher_init" and student.source.identity != teacher.source.identity:
        errors.append(
            "methods: teacher_init starts from the teacher's weights, so model.student must be "
            f"the model of model.teacher, but got {student.source.name!r} and "
            f"{teacher.source.name!r}"
        )
    return errors


def answer_room(model: KnownModel, longest: int) -> int:
    """Return how many positions an answer of at most `longest` tokens takes: after a task input in
    a decoder-only model, those of the decoder in an encoder-decoder, and none in an encoder."""
    kind = family(model.config)
    if kind == "encoder-decoder":
        return len(answer_opening(model.tokenizer)) + longest
    return len(answer_start(model.tokenizer)) + longest if kind == "decoder" else 0


def _after_input(model: KnownModel, answer: int) -> int:
    """Return how many of an answer's positions are behind the task input."""
    return answer if family(model.config) == "decoder" else 0


def _marks(config: RunConfig, method: str) -> list[Mark]:
    """Return what a method needs marked in the tokens of its models."""
    chosen = config.align.input
    aligned = method == "knife" and chosen.weight
    return [mark for mark in get_args(Mark) if aligned and mark == chosen.tokens]


def _position_errors(limit: int, rooms: Sequence[tuple[str, KnownModel, int]]) -> list[str]:
    """Return errors for models with too few positions for `limit` tokens and an answer, which takes
    a number of them."""
    errors = []
    for name, model, answer in rooms:
        known, own = model.positions, decoder_positions(model.config)
        after = _after_input(model, answer)
        if known is not None and limit + after > known:
            less = f", less {after} tokens for the longest answer" if after else ""
            errors.append(
                f"data.max_tokens: must be at most {known - after}, the positions of "
                f"{name}{less}, but got {limit}"
            )
        if own is not None and answer > own:
            errors.append(
                f"data.source: the longest answer has {answer} tokens, but the decoder of "
                f"{name} has {own} positions; leave such examples out"
            )
    return errors


def _part_notes(models: Mapping[str, KnownModel]) -> list[str]:
    """Return a note on each model, by config key, of which a part is used alone."""
    return [
        f"{key}: of the {model.whole!r} model, its language model ({model.config.model_type!r}) is "
        "trained alone"
        for key, model in models.items()
        if model.whole
    ]


def _tokens(
    prepared: Prepared,
    splits: Splits,
    models: Mapping[str, KnownModel],
    limit: int,
    marks: Collection[Mark] = (),
) -> dict[str, Tokenized]:
    """Return the splits as tokens of models, each by its config key.

    Raises:
        UserError: as `tokenize` does, with the models that an error is of, unless it is of all.
    """
    found: dict[str, Tokenized] = {}
    failed: dict[str, list[str]] = {}
    for key, model in models.items():
        try:
            found[key] = prepared.tokens(
                splits, model.tokenizer, model.source.identity, limit, marks
            )
        except UserError as error:
            for message in error.errors:
                failed.setdefault(message, []).append(key)
    raise_errors(
        message if len(keys) == len(models) else f"{message} (tokens of {keys[0]})"
        for message, keys in failed.items()
    )
    return found
