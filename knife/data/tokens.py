"""Texts and tokens of an example: task input and rationale are separate, so that `I` is the same.

The teacher reads `[I ; R]` and the student `[I]`; with equal tokenizers, both see exactly the same
tokens of `I` at the same positions, special tokens included. Truncation removes rationale tokens
only.

Tokenizers of encoders end every text with a special token. Those of decoder-only models do not:
there a rationale ends with a newline, and a choice is tokenised as it would be after `answer:`,
followed by the end-of-sequence token.
"""

from dataclasses import dataclass, field
from typing import Any

from knife.data.example import Example
from knife.data.examples import BATCH

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
        words: for each token of the task input the words that it belongs to, by their numbers:
            the first and one past the last, equal if there is none. Empty if words are not
            marked, or the tokenizer's offsets cannot be trusted (`knife.data.words`).
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
    words: list[tuple[int, int]] = field(default_factory=list)


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
    return following(tokenizer, "choices", [ANSWER])[0]


def answer_opening(tokenizer: Any) -> list[int]:
    """Return the special token that begins an answer, if the tokenizer begins texts with one, as in
    BART: the decoder reads it after its start token, but no choice's score counts it."""
    opening = tokenizer.cls_token_id
    first = tokenizer("answer")["input_ids"][0]
    return [opening] if closes(tokenizer) and first == opening else []


def _letter(number: int) -> str:
    """Return a, b, … z, aa, ab, … for 0, 1, …"""
    letters = chr(ord("a") + number % 26)
    return letters if number < 26 else _letter(number // 26 - 1) + letters


def encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Return token ids with the closing special token, if any, but not the opening one of `I`."""
    if not texts:
        return []
    ends = closes(tokenizer)
    ids, opening = _ids(tokenizer, texts, ends), tokenizer.cls_token_id
    return [row[1:] if ends and opening is not None and row[0] == opening else row for row in ids]


def following(tokenizer: Any, before: str, texts: list[str]) -> list[list[int]]:
    """Return the tokens that texts have right after another text: a word's tokens depend on the
    space before it."""
    if not texts:
        return []
    first: list[int] = tokenizer(before, add_special_tokens=False)["input_ids"]
    wholes = _ids(tokenizer, [before + text for text in texts], False)
    split = all(whole[: len(first)] == first for whole in wholes)
    return [whole[len(first) :] for whole in wholes] if split else encode(tokenizer, texts)


def backend(tokenizer: Any) -> Any:
    """Return what tokenizes for a tokenizer of transformers, which itself takes as long again to
    wrap the result; it neither truncates nor pads, as its own settings may say."""
    found = tokenizer.backend_tokenizer
    found.no_truncation()
    found.no_padding()
    return found


def _ids(tokenizer: Any, texts: list[str], special: bool) -> list[list[int]]:
    found: list[list[int]] = []
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        encoded = backend(tokenizer).encode_batch_fast(part, add_special_tokens=special)
        found += [each.ids for each in encoded]
    return found
