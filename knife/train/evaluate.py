"""A model's answers to a split, choices by score and open ones in writing, and their metrics."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from knife.data.batches import Batch, collate, evaluation_rows
from knife.data.forms import asked_to_explain, with_prefixes
from knife.data.same_tokens import first_alike
from knife.data.token_table import sequence_lengths
from knife.data.tokens import Tokens, bare_rationale
from knife.method.objective import Losses
from knife.models.generation import Prefix
from knife.stats.text_match import exact_match, token_f1
from knife.train.context import Context, gather
from knife.train.finite import refuse_not_finite

Explains = Literal["no", "first", "after", "apart"]
BATCH_SIZE = 64
# A mean over an answer's tokens is off by a few units in the last place of its 24 bits.
RESOLUTION = 1e-6


@dataclass(frozen=True)
class GenerationSpec:
    """How a model is queried.

    Attributes:
        rationale: whether it reads `[I ; R]` (a teacher) or `[I]`.
        explains: whether it writes a rationale: before its answer, after it, or apart from it, when
            asked to explain.
        answer_tokens: the most tokens that it writes.
        rationale_tokens: the most tokens of a rationale that it writes after its answer or apart.
        tokenizer: decodes them; needed if anything is written.
    """

    rationale: bool = False
    explains: Explains = "no"
    answer_tokens: int = 0
    rationale_tokens: int = 0
    tokenizer: Any = None


@dataclass(frozen=True)
class Answer:
    """A model's answer to one example.

    Attributes:
        scores: of the choices, or of the right answer alone if the question is open.
        text: what it wrote as its answer to an open question.
        rationale: what it wrote besides.
    """

    scores: list[float]
    text: str | None = None
    rationale: str | None = None


def answer_split(
    model: Callable[[Batch], Losses],
    tokens: Sequence[Tokens],
    ids: Sequence[str],
    pad_id: int,
    context: Context,
    asking: GenerationSpec,
) -> list[Answer]:
    """Return the answers to all examples, in the split's order, on every rank.

    `model` is an objective, or an engine around one; `ids` are the examples' ids. All ranks make
    the same number of forward passes, which sharded weights require.

    Raises:
        NotFiniteError: its outputs are NaN or infinite; the same on all ranks.
    """
    opened, first = tokens[0].open, asking.explains == "first"
    texts: list[str | None] = [None] * len(tokens)
    rationales: list[str | None] = [None] * len(tokens)
    written: list[list[int]] = []

    def write(asked: Sequence[Tokens], most: int, texts: int = 1) -> list[list[int]]:
        found = _write_split(model, asked, pad_id, context, asking.rationale, most, texts)
        refuse_not_finite(ids, found)
        return [row for row in found if row is not None]

    if opened or first:
        written = write(tokens, asking.answer_tokens, 1 + (opened and first))
        if first:
            parts = [_parted(row, asking.tokenizer.eos_token_id) for row in written]
            tokens = with_prefixes(tokens, [own for own, _ in parts])
            rationales = [_rationale(asking, own) for own, _ in parts]
            written = [rest for _, rest in parts]
        if opened:
            texts = [_text(asking, row) for row in written]
    scores = score_split(model, tokens, pad_id, context, rationale=asking.rationale)
    refuse_not_finite(ids, scores)
    if asking.explains == "apart":
        asked = asked_to_explain(tokens, asking.tokenizer)
        each = [replace(e, input_ids=asked(e)) for e in tokens]
        rationales = [_rationale(asking, row) for row in write(each, asking.rationale_tokens)]
    elif asking.explains == "after":
        answers = written if opened else _chosen(tokens, scores)
        eos = asking.tokenizer.eos_token_id
        behind = with_prefixes(tokens, [_parted(answer, eos)[0] for answer in answers])
        longest = max(len(each.prefix_ids) for each in behind)
        wholes = write(behind, longest + asking.rationale_tokens, 2)
        rationales = [_rationale(asking, _parted(row, eos)[1]) for row in wholes]
    return list(map(Answer, scores, texts, rationales))


def _chosen(tokens: Sequence[Tokens], scores: Sequence[Sequence[float]]) -> list[list[int]]:
    """Return the tokens of the choices that score highest."""
    return [e.choice_ids[choose(own)] for e, own in zip(tokens, scores, strict=True)]


def score_split(
    forward: Callable[[Batch], Losses],
    tokens: Sequence[Tokens],
    pad_id: int,
    context: Context,
    *,
    rationale: bool,
) -> list[list[float]]:
    """Return the scores of every example's choices, in the split's order, on every rank."""
    own: list[tuple[int, list[float]]] = []
    with torch.no_grad():
        for rows, batch in _batches(tokens, pad_id, context, rationale):
            scores_BC = forward(batch).scores_BC.float().tolist()
            counts = batch.choice_exists_BC.sum(1).tolist()
            context.heartbeat()
            for row, scores_C, count in zip(rows, scores_BC, counts, strict=True):
                if row is not None:
                    own.append((row, scores_C[:count]))
    return _in_order(own, len(tokens))


def _write_split(
    model: Any,
    tokens: Sequence[Tokens],
    pad_id: int,
    context: Context,
    rationale: bool,
    most: int,
    eos_count: int,
) -> list[list[int] | None]:
    """Return the tokens the model writes for every example behind its prefix, in the split's order,
    on every rank; None where its outputs are not finite."""
    backbone = getattr(model, "module", model).backbone
    own: list[tuple[int, list[int] | None]] = []
    for rows, batch in _batches(tokens, pad_id, context, rationale):
        written = backbone.generate(
            batch,
            most,
            eos_count,
            prefix=_prefix(tokens, batch),
            synced_gpus=context.world_size > 1,
        )
        context.heartbeat()
        own += [(row, ids) for row, ids in zip(rows, written, strict=True) if row is not None]
    return _in_order(own, len(tokens))


def _prefix(tokens: Sequence[Tokens], batch: Batch) -> Prefix | None:
    """Return what rows of a batch are known to begin with, if any."""
    texts = [tokens[row].prefix_ids for row in batch.row_B.tolist()]
    return Prefix(texts, batch.row_B.device) if any(texts) else None


def _batches(
    tokens: Sequence[Tokens], pad_id: int, context: Context, rationale: bool
) -> Iterator[tuple[list[int | None], Batch]]:
    """Yield this rank's part of each batch, with its rows; None for rows that are padding."""
    lengths = sequence_lengths(tokens, rationale=rationale)
    for rows in evaluation_rows(lengths, BATCH_SIZE * context.world_size):
        part = rows.part(context.rank, context.world_size)
        batch = collate(tokens, part, pad_id, rationale).to(context.device)
        own = [r if w else None for r, w in zip(part.rows, part.weights, strict=True)]
        yield own, batch


def _in_order(own: list[tuple[int, Any]], count: int) -> list[Any]:
    whole: list[Any] = [[] for _ in range(count)]
    for part in gather(own):
        for row, values in part:
            whole[row] = values
    return whole


def _parted(ids: list[int], eos: int) -> tuple[list[int], list[int]]:
    """Split into the first text with its end-of-sequence token, and the rest."""
    end = ids.index(eos) + 1 if eos in ids else len(ids)
    first = ids[:end]
    return (first if eos in first else [*first, eos]), ids[end:]


def _rationale(asking: GenerationSpec, ids: list[int]) -> str:
    return bare_rationale(_text(asking, ids))


def _text(asking: GenerationSpec, ids: list[int]) -> str:
    text: str = asking.tokenizer.decode(ids, skip_special_tokens=True)
    return text.strip()


def probabilities(scores: Sequence[float]) -> list[float]:
    """Return the softmax over one example's choices."""
    top = max(scores)
    exponentials = [math.exp(score - top) for score in scores]
    return [e / sum(exponentials) for e in exponentials]


def log_probability(scores: Sequence[float], choice: int) -> float:
    """Return the log probability of one of an example's choices, exact however unlikely it is."""
    top = max(scores)
    return scores[choice] - top - math.log(sum(math.exp(score - top) for score in scores))


def choose(scores: Sequence[float]) -> int:
    """Return the index of the highest score, the first among equals."""
    return max(range(len(scores)), key=scores.__getitem__)


def at_the_top(scores: Sequence[float], example: Tokens) -> list[int]:
    """Return the indices of the choices that score highest; more than one is a tie.

    Scores count as equal if float32 cannot resolve their difference: which one is higher is then an
    accident of rounding. Choices with the same tokens are always tied, even if a model scores them
    differently, which only their position in the list can cause.
    """
    alike, best = first_alike(example), max(scores)
    top = {
        own
        for own, score in zip(alike, scores, strict=True)
        if math.isclose(score, best, rel_tol=RESOLUTION, abs_tol=RESOLUTION)
    }
    return [index for index, own in enumerate(alike) if own in top]


def answer_fields(answer: Answer, example: Tokens) -> dict[str, Any]:
    """Return what a row says of an answer: of choices the probabilities, and the indices of those
    tied for first place, if any; and the rationale if one was written."""
    fields: dict[str, Any] = {}
    if not example.open:
        top = at_the_top(answer.scores, example)
        fields["probabilities"] = [round(p, 6) for p in probabilities(answer.scores)]
        fields |= {"tied": top} if len(top) > 1 else {}
    return fields | ({} if answer.rationale is None else {"rationale": answer.rationale})


def measures(answers: Sequence[Answer], tokens: Sequence[Tokens]) -> dict[str, float]:
    """Return mean accuracy and loss over the examples; for open answers also token F1, for choices
    the number of ties.

    Choices: the share of examples whose right choice scores highest (a tie of k choices counts
    1/k), and the cross-entropy over choices. Open answers: exact match, and the mean negative
    log-probability of the right answer's tokens.
    """
    rights, losses = list[float](), list[float]()
    f1, ties = 0.0, 0
    for answer, example in zip(answers, tokens, strict=True):
        if example.open:
            rights.append(right(answer, example))
            losses.append(-answer.scores[0])
            f1 += token_f1(answer.text or "", example.answer_text)
        else:
            top = at_the_top(answer.scores, example)
            rights.append(_share(top, example))
            losses.append(-log_probability(answer.scores, example.answer))
            ties += len(top) > 1
    # Exact sum: rounded thirds must not make one of two equal epochs the better one.
    found = {"accuracy": math.fsum(rights) / len(tokens), "loss": sum(losses) / len(tokens)}
    return found | ({"f1": f1 / len(tokens)} if tokens[0].open else {"ties": ties})


def right(answer: Answer, example: Tokens) -> float:
    """Whether the answer is right; 1/k if the right choice is among k that are tied, the expected
    value of drawing one of them."""
    if example.open:
        return exact_match(answer.text or "", example.answer_text)
    return _share(at_the_top(answer.scores, example), example)


def _share(top: Sequence[int], example: Tokens) -> float:
    if len(top) == 1:
        return top[0] == example.answer
    return 1 / len(top) if example.answer in top else False


def predictions(
    ids: Sequence[str], tokens: Sequence[Tokens], answers: Sequence[Answer]
) -> list[dict[str, Any]]:
    """Return one JSON-ready row per example.

    id, answer, choice, right, probabilities, and the indices of choices tied for first place, if
    any, of which `choice` is one; for an open example id, answer, text, right, f1 and the mean
    log probability of the right answer's tokens; and the rationale if one was written.
    """
    rows = []
    for name, example, answer in zip(ids, tokens, answers, strict=True):
        row: dict[str, Any] = {"id": name, "right": right(answer, example)}
        if example.open:
            text = answer.text or ""
            row |= {"answer": example.answer_text, "text": text}
            row["f1"] = round(token_f1(text, example.answer_text), 6)
            row["log_probability"] = round(answer.scores[0], 6)
        else:
            row |= {"answer": example.answer, "choice": choose(answer.scores)}
        rows.append(row | answer_fields(answer, example))
    return rows
