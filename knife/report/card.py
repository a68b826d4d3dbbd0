"""The model card of a student: what it is, its results, its limits, and how to load it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from knife.config.methods import OWN_SECTION, READS_RATIONALES, TEACHES, Method
from knife.config.run import RunConfig
from knife.core.version import __version__
from knife.core.words import counted
from knife.data.check import check_split
from knife.data.example import Example, Splits
from knife.data.examples import explained_count
from knife.data.known import place_of
from knife.data.leaks import RationaleOnly
from knife.data.written import words_on
from knife.models.families import Family
from knife.models.source import EMBEDDED, INSTALLED, ModelSource
from knife.models.weights import Weights
from knife.report.table import difference_cells, interval, percent, sentence
from knife.stats.verdict import MethodVerdict, Verdict

_TEMPLATE = Path(__file__).with_name("card.md")
_KNIFE = "[arXiv 2212.09721](https://arxiv.org/abs/2212.09721)"
WHAT: dict[Method, str] = {
    "knife": "trained by KNIFE (Chan et al. 2022, " + _KNIFE + "): it learns to answer from the "
    "question alone, while its hidden states at the question tokens are trained to match those of "
    "a frozen teacher that also read a rationale",
    "finetune": "finetuned to answer from the question alone",
    "teacher_init": "finetuned to answer from the question alone, starting from the weights of a "
    "teacher that also read rationales (a baseline of " + _KNIFE + ")",
    "rationale_input": "finetuned to answer from question and rationale, and evaluated without "
    "rationales (a baseline of " + _KNIFE + ")",
    "explain_then_answer": "finetuned to generate a rationale and then the answer (a baseline of "
    + _KNIFE + ")",
    "answer_then_explain": "finetuned to generate the answer and then a rationale (a baseline of "
    + _KNIFE + ")",
    "step_by_step": "finetuned on two tasks, the answer and the rationale, both from the question "
    "(Hsieh et al. 2023, [arXiv 2305.02301](https://arxiv.org/abs/2305.02301))",
    "internalize": "finetuned to generate a rationale and then the answer, while more and more of "
    "the rationale was left out (Deng et al. 2024, "
    "[arXiv 2405.14838](https://arxiv.org/abs/2405.14838))",
    "prompt": "not trained: it reads few-shot demonstrations before each question",
    "retrieve": "finetuned to answer after the most similar training example as a demonstration",
}  # fmt: skip
# Students that read the bare task input, so that plain transformers can query them.
_BARE = ("knife", "finetune", "teacher_init", "rationale_input", "step_by_step", "internalize")
_PLAIN = """It also loads in plain transformers. A choice's score is the mean log-probability of its
tokens:

```python
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model = AutoModelForSeq2SeqLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
question = "do a frog and a toad both lay eggs ?"
choices = {"yes": "(a)", "no": "(b)"}
listed = " ".join(f"{letter} {choice}" for choice, letter in choices.items())
inputs = tokenizer(f"question: {question} choices: {listed}", return_tensors="pt")


def score(choice):
    labels = tokenizer(choice, return_tensors="pt").input_ids
    with torch.no_grad():
        return -model(**inputs, labels=labels).loss.item()


print(max(choices, key=score))
```"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a card is rendered from.

    Attributes:
        run, run_key: name and key of the run.
        method, seed, key: the student's method as named in the run, its seed and its store key.
        config: the run config for its method only.
        student, teacher: the models that were trained; the teacher is None if there is none.
        weights: where each trained model's parameters come from, by model name.
        family: the student's model family.
        plain: whether a choice's score is that of plain transformers for the choice as a text.
        data_key: key of the splits in the store.
        splits: the data it was trained and tested on.
        written: the record of rationales that a language model wrote; None: none did.
        leaks: how well answers can be predicted from train's rationales alone; None: unknown.
        accuracy: the student's accuracy on test, from 0 to 1.
        verdict: the run's verdict.
    """

    run: str
    run_key: str
    method: str
    seed: int
    key: str
    config: RunConfig
    student: ModelSource
    teacher: ModelSource | None
    weights: dict[str, Weights]
    family: Family
    plain: bool
    data_key: str
    splits: Splits
    written: dict[str, Any] | None
    leaks: RationaleOnly | None
    accuracy: float
    verdict: Verdict

    @property
    def kind(self) -> Method:
        """The method it was trained by."""
        (variant,) = self.config.variants()
        return variant.method

    @property
    def open(self) -> bool:
        """Whether it generates its answers."""
        return self.splits.test[0].open

    @property
    def base(self) -> ModelSource:
        """The model whose weights it started from."""
        return self.teacher if self.teacher and self.kind == "teacher_init" else self.student


def card(facts: Facts) -> str:
    """Render the card as Markdown, preceded by the hub's metadata."""
    measure = "exact match" if facts.open else "accuracy"
    question: dict[str, Any] = {"id": "1", "question": "do a frog and a toad both lay eggs ?"}
    if not facts.open:
        question["choices"] = ["yes", "no"]
    made = ModelCard.from_template(
        _metadata(facts),
        template_str=_TEMPLATE.read_text(encoding="utf-8"),
        title=f"{facts.run}: {facts.method}, seed {facts.seed}",
        what=_what(facts),
        about=_about(facts),
        results=[
            f"This student: {measure} {percent(facts.accuracy)} % on the test split.",
            f"Its run: {sentence(facts.verdict)}",
            *facts.verdict.notes,
        ],
        measure=measure,
        baseline=facts.verdict.baseline,
        methods=[_method_row(each, facts) for each in facts.verdict.methods],
        examples=len(facts.splits.test),
        data=_data(facts),
        splits=[_split_row(name, part) for name, part in facts.splits.parts.items()],
        settings=_settings(facts.config, facts.kind),
        limits=_limits(facts),
        question=repr(question).replace("'", '"'),
        version=__version__,
        plain=_plain(facts),
    )
    return f"{str(made).strip()}\n"


def _metadata(facts: Facts) -> ModelCardData:
    source = facts.config.data.source
    place = place_of(source)
    # If data and model come with the package, the licence is known.
    packaged = source == "creatures" and facts.base.name in EMBEDDED
    task = "question-answering" if facts.open else "multiple-choice"
    return ModelCardData(
        license="apache-2.0" if packaged else None,
        base_model=facts.base.repository if facts.base.revision else None,
        datasets=[each.repository for each in place.places] if place else None,
        library_name="transformers",
        pipeline_tag=task,
        tags=["knife", "rationales", facts.kind.replace("_", "-")],
        metrics=["exact_match" if facts.open else "accuracy"],
        model_name=f"{facts.run}-{facts.method}-seed-{facts.seed}",
        eval_results=[
            EvalResult(
                task_type=task,
                dataset_type=place.repository if place else _source(source),
                dataset_name=_source(source),
                dataset_split="test",
                metric_type="exact_match" if facts.open else "accuracy",
                metric_value=round(facts.accuracy, 4),
            )
        ],
    )


def _what(facts: Facts) -> str:
    does = (
        "generates the answer to a question" if facts.open else "chooses among a question's answers"
    )
    named = "" if facts.method == facts.kind else f" (method `{facts.kind}`)"
    return f"A small language model that {does}, {WHAT[facts.kind]}{named}."


def _about(facts: Facts) -> list[tuple[str, str]]:
    found = [("started from", _model(facts.base))]
    found.append(("weights from its files", facts.weights[facts.base.name].words()))
    if facts.kind in TEACHES and facts.teacher:
        found.append(("teacher", f"{_model(facts.teacher)}, finetuned on questions and rationales"))
    found.append(("run", _code(f"{facts.run}-{facts.run_key}")))
    found.append(("key in the store", _code(facts.key)))
    return found


def _method_row(each: MethodVerdict, facts: Facts) -> list[str]:
    points, p, _ = difference_cells(each.difference)
    name = f"**{each.method}**" if each.method == facts.method else each.method
    seeds = counted(each.seeds, "seed")
    return [
        f"{name}, {seeds}",
        f"{percent(each.accuracy)} ({interval(each) or 'no spread'})",
        points,
        p,
    ]


def _data(facts: Facts) -> list[tuple[str, str]]:
    data = facts.config.data
    source = _code(_source(data.source))
    if place := place_of(data.source):
        source += f" (hub: {', '.join(f'`{each.repository}`' for each in place.places)})"
    found = [("source", source), ("digest", _code(facts.data_key))]
    found.append(("share of train used", f"{data.fraction:g} (drawn by {data.split_seed})"))
    found.append(("rationales", data.rationale))
    if record := facts.written:
        found += [
            (f"rationales of {split}", _cell(words_on(record, counts)))
            for split, counts in record["splits"].items()
        ]
        prompt = record["prompt"]
        if record["changed"]:
            found.append(("files changed since", _cell(", ".join(record["changed"]))))
        found.append(("prompt", f"{_code(prompt['name'])}, digest {_code(prompt['digest'])}"))
    return found


def _split_row(name: str, examples: Sequence[Example]) -> list[str]:
    return [name, f"{len(examples):,}", f"{explained_count(examples):,}"]


def _settings(config: RunConfig, kind: Method) -> list[tuple[str, str]]:
    if kind == "prompt":
        return [(f"prompt.{name}", str(value)) for name, value in config.prompt]
    found = [(f"student.{name}", str(value)) for name, value in config.student]
    if kind in OWN_SECTION:
        found += [(f"{kind}.{name}", str(value)) for name, value in getattr(config, kind)]
    if kind in TEACHES:
        found += [(f"teacher.{name}", str(value)) for name, value in config.teacher]
    if kind == "knife":
        for name, part in (("input", config.align.input), ("output", config.align.output)):
            found += [(f"align.{name}.{key}", str(value)) for key, value in part]
    scale = config.scale
    found.append(("precision", f"{scale.precision}, ZeRO {scale.zero_stage}"))
    found.append(("data.max_tokens", str(config.data.max_tokens)))
    return [(name, value) for name, value in found if value != "None"]


def _limits(facts: Facts) -> list[str]:
    found = [_noise(len(facts.splits.test))]
    if not facts.open:
        found.append(_chance(facts.splits.test))
    if facts.kind in READS_RATIONALES or facts.kind in TEACHES:
        found += _leakage(facts)
    found.append(
        "It was evaluated only on questions like those of its training data. How it answers other "
        "questions, or other languages, is unknown."
    )
    if facts.kind == "retrieve":
        found.append("`retrieve.jsonl` contains its training examples as plain text.")
    if facts.kind == "prompt":
        found.append(
            "The demonstrations before each question are training examples, as plain text."
        )
    if facts.written:
        said = facts.written["licence"]
        found.append(f"A language model wrote training rationales: {said}.")
    if not _metadata(facts).license:
        found.append("Licence: depends on base model and data, and is not known here.")
    return found


def _noise(examples: int) -> str:
    points = 98 / examples**0.5
    small = " The test split is small." if examples < 200 else ""
    return (
        f"With {examples:,} test examples, one student's accuracy has an uncertainty of about "
        f"± {points:.1f} points (95 %).{small}"
    )


def _chance(test: Sequence[Example]) -> str:
    chance = fmean(1 / len(example.choices) for example in test)
    number = max(check_split(test).answers.values())
    return (
        f"Guessing gives {percent(chance)} %; always giving the most frequent answer, "
        f"{percent(number / len(test))} %."
    )


def _leakage(facts: Facts) -> list[str]:
    found = []
    said = check_split(facts.splits.train).leakage
    if said is not None:
        found.append(f"{percent(said)} % of the training rationales contain the answer.")
    if facts.leaks:
        found.append(
            f"A word-based classifier predicts {percent(facts.leaks.accuracy)} % of the answers "
            f"from the rationale alone (chance {percent(facts.leaks.chance)} %, "
            f"{facts.leaks.examples:,} training rationales): rationales that leak the answer teach "
            "no reasoning."
        )
    ceiling = facts.verdict.ceiling
    if ceiling and ceiling.with_rationale is not None and ceiling.without_rationale is not None:
        found.append(
            f"The teacher answers {percent(ceiling.with_rationale)} % of the test split correctly "
            f"with rationales, and {percent(ceiling.without_rationale)} % without."
        )
    return found


def _plain(facts: Facts) -> str:
    if facts.plain and facts.kind in _BARE and not facts.open:
        return _PLAIN
    if facts.family == "encoder":
        return (
            "`AutoModel.from_pretrained` of plain transformers loads only the encoder: the answer "
            "head is in `answer_head.safetensors`, which `knife` reads."
        )
    name = "AutoModelForSeq2SeqLM" if facts.family == "encoder-decoder" else "AutoModelForCausalLM"
    return (
        f"`{name}.from_pretrained` of plain transformers loads the weights; `knife` adds the input "
        "format and the scoring of answers."
    )


def _model(source: ModelSource) -> str:
    if source.revision:
        return f"`{source.name}` (hub, revision `{source.revision[:12]}`)"
    if source.name in EMBEDDED:
        return f"`{source.name}` (ships with the package `knife`)"
    if source.name in INSTALLED:
        return f"`{source.name}` (the package `{INSTALLED[source.name][0]}`)"
    return f"{_code(_source(source.name))} (a local folder)"


def _source(name: str) -> str:
    """Return a known name as it is; of a path, which may reveal its user, only the last part."""
    return name if place_of(name) else Path(name).name


def _cell(text: str) -> str:
    """Return a text that is safe in a table cell."""
    return " ".join(text.split()).replace("|", "/").replace("<", "&lt;")


def _code(text: str) -> str:
    """Return any text as code that is safe in a table cell."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '/')}`"
