"""Reads data and models for a plan, each once, and reports their errors before anything starts."""

from dataclasses import dataclass, field

from knife.config.run import READS_RATIONALES, TEACHES, WRITES, RunConfig, Variant
from knife.core.errors import UserError, raise_errors
from knife.data.check import rationale_errors
from knife.data.example import Splits
from knife.data.fitting import fitting
from knife.data.forms import training_tokens
from knife.data.same_tokens import look_for_same_tokens
from knife.data.source import load_source
from knife.data.tokens import Tokens, Truncation, answer_start, tokenize
from knife.data.treatment import used_splits
from knife.models.check import CheckedModel, check_model
from knife.models.families import family
from knife.models.quiet import quiet
from knife.models.source import ModelSource, find_model
from knife.models.tokenizer import can_generate
from knife.plan.demonstrations import demonstration_limit, with_demonstrations
from knife.plan.memory import Lengths, ModelSize, model_size
from knife.plan.writable import unwritable_notes
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
        lengths: lengths of the examples of train in the form that the student is trained on.
        demonstration_tokens: limit on demonstrations and task input together; 0 without any.
        notes: decisions that a user should know, one sentence each.
    """

    splits: Splits
    student: KnownModel
    teacher: KnownModel | None
    lengths: Lengths
    demonstration_tokens: int
    notes: list[str]


@dataclass
class _Reading:
    """Splits as tokens by model, and errors and notes on them by the student's name."""

    splits: Splits
    limit: int
    tokens: dict[str, tuple[list[Tokens], Truncation]] = field(default_factory=dict)
    looked: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)


class SourceReader:
    """Reads data and models for the variants of plans, each only once."""

    def __init__(self) -> None:
        self._sources: dict[str, Sources] = {}
        self._whole: dict[str, Splits] = {}
        self._treated: dict[str, Splits] = {}
        self._models: dict[str, KnownModel] = {}
        self._reading: _Reading | None = None

    def read(self, config: RunConfig, variant: Variant) -> Sources:
        """Read the data and models of `variant`, whose config is `config`.

        Raises:
            UserError: with all errors in the data and the models.
        """
        parts = (config.data, config.model, config.prompt)
        # Seeds draw the demonstrations of a prompt.
        seeds = config.seeds if variant.method == "prompt" else None
        known = fingerprint([*(p.model_dump() for p in parts), seeds, variant.method])
        if known not in self._sources:
            self._sources[known] = self._read(config, variant)
        return self._sources[known]

    def let_tokens_go(self) -> None:
        """Free the tokens, which serve only one plan and take far more memory than the data."""
        self._reading = None

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
        limit = config.data.max_tokens
        reading = self._read_as(splits, limit)
        tokens, notes = _tokens_of_both(reading, student, teacher)
        # The teacher's tokens are the same.
        same, more = _look(reading, student, tokens)
        raise_errors(same)
        notes += more
        method, tokenizer = variant.method, student.tokenizer
        train, second = training_tokens(method, tokens[: len(splits.train)], tokenizer)
        answer = answer_room(student, [*tokens, *train])
        if method == "explain_then_answer":
            # The generated rationale may lack its closing token.
            answer += answer_room(student, tokens) + 1
        if second:
            word = len(second[0].input_ids) - len(tokens[0].input_ids)
            answer = max(answer, answer_room(student, second) + word)
        raise_errors(_position_errors(limit, answer, student, teacher))
        most = demonstration_limit(config, method, student.positions, tokenizer, answer)
        tokens, more = with_demonstrations(config, method, splits, tokens, tokenizer, most)
        if most:
            # Methods with demonstrations train on examples in their original form.
            train = tokens[: len(splits.train)]
        return Sources(splits, student, teacher, _lengths(train), most, splits.notes + notes + more)

    def _model(self, name: str, key: str) -> KnownModel:
        if name not in self._models:
            source = find_model(name, key)
            quiet()
            found = check_model(source.folder, key)
            size = model_size(found.config, source.folder)
            self._models[name] = KnownModel(**vars(found), source=source, size=size)
        return self._models[name]

    def _splits(self, config: RunConfig, method: str, student: KnownModel | None) -> Splits:
        data = config.data
        source = data.model_dump_json(exclude={"fraction", "rationale", "max_tokens", "too_long"})
        if source not in self._whole:
            self._whole[source] = load_source(data)
        drops = data.too_long == "drop" and student is not None
        fit = [config.model.student, data.max_tokens] if drops else None
        known = fingerprint([source, data.fraction, data.rationale, fit])
        if known not in self._treated:
            whole = self._whole[source]
            if drops:
                assert student
                whole = fitting(whole, student.tokenizer, data.max_tokens)
            self._treated[known] = used_splits(whole, data)
        splits = self._treated[known]
        if method in TEACHES | READS_RATIONALES - {"retrieve"}:
            raise_errors(rationale_errors(splits.train, method))
        return splits

    def _read_as(self, splits: Splits, limit: int) -> _Reading:
        """Return the cache for these splits and this limit, dropping the one for others."""
        now = self._reading
        if now is None or now.splits is not splits or now.limit != limit:
            now = self._reading = _Reading(splits, limit)
        return now


def _model_errors(
    config: RunConfig,
    variant: Variant,
    splits: Splits,
    student: KnownModel,
    teacher: KnownModel | None,
) -> list[str]:
    """Return errors for models that do not suit the data, the method or each other."""
    errors: list[str] = []
    encoders = [
        f"model.{name}"
        for name, model in (("student", student), ("teacher", teacher))
        if model and not can_generate(model.config)
    ]
    for key in encoders:
        if splits.train[0].open:
            errors.append(
                f"data.source: has open questions, whose answers are generated, but {key} is an "
                "encoder, which cannot generate; use an encoder-decoder or a decoder-only model"
            )
        elif variant.method in WRITES and key == "model.student":
            errors.append(
                f"methods: students of {variant.method} generate text, but {key} is an encoder, "
                "which cannot; use an encoder-decoder or a decoder-only model, or leave the method "
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


def answer_room(model: KnownModel, tokens: list[Tokens]) -> int:
    """Return how many positions the longest answer takes after a task input: none in an
    encoder-decoder, whose decoder has its own, or in an encoder."""
    if family(model.config) != "decoder":
        return 0
    longest = max(len(ids) for example in tokens for ids in example.choice_ids)
    return len(answer_start(model.tokenizer)) + longest


def _position_errors(
    limit: int, answer: int, student: KnownModel, teacher: KnownModel | None
) -> list[str]:
    """Return errors for models with too few positions for `limit` tokens and an answer."""
    errors = []
    for name, model in (("student", student), ("teacher", teacher)):
        known = model.positions if model else None
        if known is not None and limit + answer > known:
            less = f", less {answer} tokens for the longest answer" if answer else ""
            errors.append(
                f"data.max_tokens: must be at most {known - answer}, the positions of "
                f"model.{name}{less}, but got {limit}"
            )
    return errors


def _tokens_of_both(
    reading: _Reading, student: KnownModel, teacher: KnownModel | None
) -> tuple[list[Tokens], list[str]]:
    """Return the tokens, which both models must share, and a note on truncated rationales."""
    tokens, cut = _tokenized(reading, student)
    if teacher is None:
        return tokens, []
    if student.source.identity != teacher.source.identity:
        others, cut = _tokenized(reading, teacher)
        pairs = list(zip(tokens, others, strict=True))
        if any((a.input_ids, a.choice_ids) != (b.input_ids, b.choice_ids) for a, b in pairs):
            raise UserError(
                "model: teacher and student split task inputs into different tokens, so their "
                "states cannot be aligned; use models with the same tokenizer (vocabulary sizes "
                "may differ, as long as these examples become the same tokens)"
            )
    if not cut.rationales:
        return tokens, []
    return tokens, [
        f"{cut.rationales} rationales were truncated to fit data.max_tokens={reading.limit} "
        f"({cut.tokens} tokens in all); task inputs are never truncated"
    ]


def _tokenized(reading: _Reading, model: KnownModel) -> tuple[list[Tokens], Truncation]:
    known, splits = model.source.identity, reading.splits
    if known not in reading.tokens:
        found = tokenize(splits.everything, model.tokenizer, reading.limit, mark_content=False)
        reading.tokens[known] = found
    return reading.tokens[known]


def _look(
    reading: _Reading, student: KnownModel, tokens: list[Tokens]
) -> tuple[list[str], list[str]]:
    """Return errors and notes on answers that cannot be told apart or cannot be generated."""
    name, splits = student.source.name, reading.splits
    if name not in reading.looked:
        model = f"tokenizer of model.student, {name}"
        errors, notes = look_for_same_tokens(splits, tokens, model)
        notes += unwritable_notes(splits, tokens, student.tokenizer, model)
        reading.looked[name] = (errors, notes)
    return reading.looked[name]


def _lengths(train: list[Tokens]) -> Lengths:
    """Return the lengths of training examples."""
    choices = [len(ids) for tokens in train for ids in tokens.choice_ids]
    inputs = [len(tokens.input_ids) for tokens in train]
    wholes = [len(tokens.input_ids) + len(tokens.rationale_ids) for tokens in train]
    return Lengths(
        inputs=max(inputs, default=0),
        wholes=max(wholes, default=0),
        choices=max((len(tokens.choice_ids) for tokens in train), default=0),
        choice=max(choices, default=0),
        all_inputs=sum(inputs),
        all_choices=sum(choices),
        count=len(train),
        scores=len(choices),
    )
