"""Tokenises task input and rationale separately, so that `I` is the same for all models.

The teacher reads `[I ; R]` and the student `[I]`; both see exactly the same tokens of `I` at the
same positions, special tokens included. Truncation removes rationale tokens only.

Tokenizers of encoders end every text with a special token. Those of decoder-only models do not:
there a rationale ends with a newline, and a choice is tokenised as it would be after `answer:`,
followed by the end-of-sequence token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from knife.core.errors import raise_errors
from knife.data.content import content_tokens
from knife.data.example import Example
from knife.data.line_errors import cap

# The text before the answer of a decoder-only model.
ANSWER = " answer:"
# What every task input starts with.
QUESTION = "question: "
# More tokens than any example has: nothing is truncated.
UNBOUNDED = 10**9
# The word that every rationale starts with.
EXPLANATION = "explanation:"


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenised example.

    Attributes:
        input_ids: the task input `I`, special tokens included.
        rationale_ids: the rationale `R` with its closing token; empty if there is none.
        choice_ids: each choice's tokens with the closing special token; for an open question,
            only those of the right answer, if known.
        choice_spans: the span of each choice in `input_ids`: first token and one past the last;
            empty for an open question.
        answer: index of the right choice.
        open: whether the answer is free text; `answer_text` is that answer.
        prefix_ids: what the model has generated before its answer; it is read, but not scored.
        content: positions in `input_ids` of the tokens that carry content.
    """

    input_ids: list[int]
    rationale_ids: list[int]
    choice_ids: list[list[int]]
    choice_spans: list[tuple[int, int]]
    answer: int
    open: bool = False
    answer_text: str = ""
    prefix_ids: list[int] = field(default_factory=list)
    content: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Truncation:
    """The number of rationales truncated by `data.max_tokens`, and of all tokens removed."""

    rationales: int = 0
    tokens: int = 0


def task_input_text(example: Example) -> tuple[str, list[tuple[int, int]]]:
    """Return the task input as text, and the character span of each choice in it."""
    if example.open:
        return f"{QUESTION}{example.question}", []
    text = f"{QUESTION}{example.question} choices:"
    spans = []
    for number, choice in enumerate(example.choices):
        text += f" ({_letter(number)}) "
        spans.append((len(text), len(text) + len(choice)))
        text += choice
    return text, spans


def rationale_text(rationale: str) -> str:
    """Return the rationale as the teacher reads it."""
    return f"{EXPLANATION} {rationale}"


def bare_rationale(text: str) -> str:
    """Invert `rationale_text`, for what a student has generated."""
    return text.removeprefix(EXPLANATION).strip()


def closes(tokenizer: Any) -> bool:
    """Whether a tokenizer ends texts with a special token, as those of encoders do."""
    mask: list[int] = tokenizer("answer", return_special_tokens_mask=True)["special_tokens_mask"]
    return mask[-1] == 1


def openings(tokenizer: Any) -> set[int]:
    """Return the special tokens that a text may begin with."""
    return {tokenizer.cls_token_id, tokenizer.bos_token_id} - {None}


def answer_start(tokenizer: Any) -> list[int]:
    """Return the tokens of `answer:` after a task input, which a decoder-only model continues."""
    return _following(tokenizer, "choices", [ANSWER])[0]


def tokenize(
    examples: Sequence[Example], tokenizer: Any, max_tokens: int, *, mark_content: bool = True
) -> tuple[list[Tokens], Truncation]:
    """Tokenise examples for any backbone.

    `max_tokens` limits task input and rationale together: rationales that are too long are
    truncated at the end, and one that keeps none of its own tokens counts as none. `mark_content`
    finds the tokens that carry content, which only alignment needs.

    Raises:
        UserError: task inputs alone are longer than `max_tokens`, or a choice has no tokens.
    """
    texts = [task_input_text(example) for example in examples]
    inputs = tokenizer([text for text, _ in texts], return_offsets_mapping=True)
    written = [rationale_text(e.rationale) for e in examples if e.rationale]
    distinct = list(dict.fromkeys(choice for e in examples for choice in e.choices))
    if closes(tokenizer):
        rationales, choices = _encode(tokenizer, written), _encode(tokenizer, distinct)
    else:
        rationales = _encode(tokenizer, [f"{text}\n" for text in written])
        choices = _following(tokenizer, ANSWER, [f" {choice}" for choice in distinct])
        choices = [[*ids, tokenizer.eos_token_id] for ids in choices]
    rationale_rows = iter(rationales)
    choice_ids = dict(zip(distinct, choices, strict=True))

    tokens, cut, errors = [], [], []
    longest, too_long = 0, 0
    for row, example in enumerate(examples):
        input_ids = inputs["input_ids"][row]
        longest = max(longest, len(input_ids))
        too_long += len(input_ids) > max_tokens
        rationale_ids = next(rationale_rows) if example.rationale else []
        room = max_tokens - len(input_ids)
        if len(rationale_ids) > room:
            cut.append(len(rationale_ids) - room)
            rationale_ids = [*rationale_ids[: room - 1], rationale_ids[-1]] if room > 1 else []
        spans = [_token_span(inputs["offset_mapping"][row], span) for span in texts[row][1]]
        errors += [
            f"example {example.id!r}: the tokenizer returns no token for the choice {choice!r}; "
            "give it characters that the model knows"
            for choice, (start, end) in zip(example.choices, spans, strict=False)
            if start == end
        ]
        ids = [choice_ids[choice] for choice in example.choices]
        text = example.choices[0] if example.open and example.choices else ""
        own = Tokens(input_ids, rationale_ids, ids, spans, example.answer, example.open, text)
        if mark_content:
            written_in, places = texts[row]
            asked = (len(QUESTION), len(QUESTION) + len(example.question))
            content = content_tokens(written_in, [asked, *places], inputs["offset_mapping"][row])
            own = replace(own, content=content)
        tokens.append(own)
    errors = cap(errors)
    if too_long:
        errors.append(
            f"data.max_tokens: {too_long} of {len(examples)} task inputs are longer than "
            f"{max_tokens} tokens (the longest has {longest}), and only rationales are truncated: "
            f"raise data.max_tokens to at least {longest}, if the models have that many "
            "positions, or leave such examples out (data.too_long=drop)"
        )
    raise_errors(errors)
    return tokens, Truncation(len(cut), sum(cut))


def _letter(number: int) -> str:
    """Return a, b, … z, aa, ab, … for 0, 1, …"""
    letters = chr(ord("a") + number % 26)
    return letters if number < 26 else _letter(number // 26 - 1) + letters


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Return token ids with the closing special token, if any, but not the opening one of `I`."""
    if not texts:
        return []
    ends = closes(tokenizer)
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=ends)["input_ids"]
    opening = tokenizer.cls_token_id
    return [row[1:] if ends and opening is not None and row[0] == opening else row for row in ids]


def _following(tokenizer: Any, before: str, texts: list[str]) -> list[list[int]]:
    """Return the tokens that texts have right after another text: a word's tokens depend on the
    space before it."""
    if not texts:
        return []
    first: list[int] = tokenizer(before, add_special_tokens=False)["input_ids"]
    wholes = tokenizer([before + text for text in texts], add_special_tokens=False)["input_ids"]
    split = all(whole[: len(first)] == first for whole in wholes)
    return [whole[len(first) :] for whole in wholes] if split else _encode(tokenizer, texts)


def _token_span(offsets: list[tuple[int, int]], span: tuple[int, int]) -> tuple[int, int]:
    """Return the span of tokens that overlap a span of characters, empty if there are none."""
    rows = [t for t, (start, end) in enumerate(offsets) if start < span[1] and end > span[0]]
    return (rows[0], rows[-1] + 1) if rows else (0, 0)
