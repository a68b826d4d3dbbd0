"""Reads data and models for a plan, each once, and reports their errors before anything starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from knife.config.run import READS_RATIONALES, TEACHES, WRITES, RunConfig, Variant
from knife.core.errors import UserError, raise_errors
from knife.data.check import rationale_errors
from knife.data.example import Splits
from knife.data.fitting import fitted
from knife.data.forms import training_tokens
from knife.data.source import load_source, source_state
from knife.data.token_table import longest_choice
from knife.data.tokens import answer_opening, answer_start
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


@dataclass(frozen=True)
class Sources:
    """The data and models of a variant of a run.

    Attributes:
        splits: the fraction of train, dev and test, with treated rationales.
        student, teacher: the models; the teacher is None if the method has none.
        tokens, teacher_tokens: keys of the splits' tokens for the student and for the teacher.
        lengths: lengths of the examples of train in the form that the student is trained on.
        demonstration_tokens: limit on demonstrations and task input together; 0 without any.
        notes: decisions that a user should know, one sentence each.
    """

    splits: Splits
    student: KnownModel
    teacher: KnownModel | None
    tokens: str
    teacher_tokens: str
    lengths: Lengths
    demonstration_tokens: int
    notes: list[str]


class SourceReader:
    """Reads data and models for the variants of plans, each only once."""

    def __init__(self) -> None:
        self._sources: dict[str, Sources] = {}
        # With the state of the source that was read; None if it changed meanwhile.
        self._whole: dict[str, tuple[object | None, Splits]] = {}
        self._several = False
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
        known = fingerprint([*(p.model_dump() for p in parts), seeds, variant.method])
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
        tokens = _tokens(prepared, splits, sources.teacher, config.data.max_tokens, content=False)
        return replace(sources, splits=splits, tokens=tokens.key, teacher_tokens=tokens.key)

    @contextmanager
    def planning(self, config: RunConfig) -> Iterator[None]:
        """Keep whole sources in memory meanwhile if the variants use them in different ways."""
        self._several = any(variant.data for variant in config.variants())
        try:
            yield
        finally:
            self._whole.clear()

    def _read(self, config: RunConfig, variant: Variant) -> Sources:
        teaches = variant.method in TEACHES
        errors: list[str] = []
        splits = student = teacher = None
        try:
            student = self._model(config.model.student, "model.student")
        except UserError as error:
            errors += error.errors
        try:
            teacher = self._model(config.model.teacher, "model.teacher") if teaches else None
        except UserError as error:
            errors += error.errors
        try:
            splits = self._splits(config, variant.method, student)
        except UserError as error:
            errors = error.errors + errors
        raise_errors(dict.fromkeys(errors))
        assert splits
        assert student
        raise_errors(_model_errors(config, variant, splits, student, teacher))
        limit, method, tokenizer = config.data.max_tokens, variant.method, student.tokenizer
        content = method == "knife" and config.align.input.tokens == "content"
        prepared = self.prepared(config)
        own = _tokens(prepared, splits, student, limit, content=content)
        # Of two equal models, the teacher's tokens are the student's.
        read = own
        if teacher and teacher.source.identity != student.source.identity:
            read = _tokens(prepared, splits, teacher, limit, content=content)
        notes = _notes_on_both(own, read, limit) if teacher else []
        notes += _notes_on_wholes(student, teacher)
        name = f"tokenizer of model.student, {student.source.name}"
        raise_errors(with_model(own.facts.errors, name))
        notes += with_model(own.facts.notes, name)
        plain = own.split("train")
        train, second = training_tokens(method, plain, tokenizer)
        lengths = own.facts.lengths if train is plain else token_lengths(train)
        answer = answer_room(student, max(own.facts.longest, lengths.choice))
        if method == "explain_then_answer":
            # The generated rationale may lack its closing token.
            answer += answer_room(student, own.facts.longest) + 1
        if second:
            word = len(second[0].input_ids) - len(plain[0].input_ids)
            answer = max(answer, answer_room(student, longest_choice(second)) + word)
        raise_errors(_position_errors(limit, answer, student, teacher))
        # Last, since it takes what was checked before for granted.
        raise_errors(self._self_test_errors(config, student, teacher))
        after = _after_input(student, answer)
        most = demonstration_limit(config, method, student.positions, tokenizer, after)
        if most:
            # Methods with demonstrations train on examples in their original form.
            tokens = [each for name in splits.parts for each in own.split(name)]
            tokens, more = with_demonstrations(config, method, splits, tokens, tokenizer, most)
            notes += more
            lengths = token_lengths(tokens[: len(splits.train)])
        return Sources(
            splits, student, teacher, own.key, read.key, lengths, most, splits.notes + notes
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
            values, limit = model.config.to_dict(), config.data.max_tokens
            values.pop("_name_or_path", None)
            failures = self.prepared(config).failures(
                [values, limit], partial(self_test, model.config, model.tokenizer, limit)
            )
            errors += [
                f"model.{name}: {model.config.model_type!r} models cannot be used: {failure}"
                for failure in failures
            ]
        return errors

    def _splits(self, config: RunConfig, method: str, student: KnownModel | None) -> Splits:
        data = config.data
        source = data.model_dump_json(exclude={"fraction", "rationale", "max_tokens", "too_long"})
        # Where what may be cut is in the questions, is read with them.
        source += data.cut or ""
        fits = data.too_long != "refuse" and student is not None
        fit = [config.model.student, data.max_tokens, data.too_long] if fits else None
        known = fingerprint([source, data.fraction, data.rationale, fit])
        if known not in self._treated:
            kept = self._whole.get(source)
            state = kept[0] if kept else source_state(data)
            if student and fits:
                fit = [student.source.identity, data.max_tokens]
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
                if student:
                    whole = fitted(whole, student.tokenizer, data)
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
    if family(student.config) != family(teacher.config):
        errors.append(
            "model: teacher and student must both be encoder-decoders, both be encoders or both be "
            f"decoder-only, but got {teacher.config.model_type!r} and "
            f"{student.config.model_type!r}"
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


def _position_errors(
    limit: int, answer: int, student: KnownModel, teacher: KnownModel | None
) -> list[str]:
    """Return errors for models with too few positions for `limit` tokens and an answer."""
    errors = []
    for name, model in (("student", student), ("teacher", teacher)):
        if model is None:
            continue
        known, own = model.positions, decoder_positions(model.config)
        after = _after_input(model, answer)
        if known is not None and limit + after > known:
            less = f", less {after} tokens for the longest answer" if after else ""
            errors.append(
                f"data.max_tokens: must be at most {known - after}, the positions of "
                f"model.{name}{less}, but got {limit}"
            )
        if own is not None and answer > own:
            errors.append(
                f"data.source: the longest answer has {answer} tokens, but the decoder of "
                f"model.{name} has {own} positions; leave such examples out"
            )
    return errors


def _tokens(
    prepared: Prepared, splits: Splits, model: KnownModel, limit: int, *, content: bool
) -> Tokenized:
    identity = model.source.identity
    return prepared.tokens(splits, model.tokenizer, identity, limit, content=content)


def _notes_on_wholes(student: KnownModel, teacher: KnownModel | None) -> list[str]:
    """Return a note on each model of which a part is used alone."""
    models = {"model.student": student, "model.teacher": teacher}
    return [
        f"{key}: of the {model.whole!r} model, its language model ({model.config.model_type!r}) is "
        "trained alone"
        for key, model in models.items()
        if model and model.whole
    ]


def _notes_on_both(student: Tokenized, teacher: Tokenized, limit: int) -> list[str]:
    """Return a note on truncated rationales, which the teacher reads.

    Raises:
        UserError: teacher and student split task inputs into different tokens.
    """
    if student.facts.digest != teacher.facts.digest:
        raise UserError(
            "model: teacher and student split task inputs into different tokens, so their "
            "states cannot be aligned; use models with the same tokenizer (vocabulary sizes "
            "may differ, as long as these examples become the same tokens)"
        )
    cut = teacher.facts.truncation
    if not cut.rationales:
        return []
    return [
        f"{cut.rationales} rationales were truncated to fit data.max_tokens={limit} "
        f"({cut.tokens} tokens in all); task inputs are never truncated"
    ]
