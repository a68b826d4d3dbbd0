"""What the methods that write rationales train on and are asked: examples in other forms.

- `explain_then_answer` (I -> RO): writes the rationale, then the answer.
- `answer_then_explain` (I -> OR): writes the answer, then the rationale.
- `step_by_step` (Hsieh et al. 2023, arXiv 2305.02301, section 3.2): writes the answer for the task
  input, and the rationale for the task input behind a word that asks for it.

The closing special token stands behind each of rationale and answer: a choice is scored, and an
answer written, up to that token by these methods as by every other one.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from knife.data.tokens import EXPLANATION, Tokens, openings


def training_tokens(
    method: str, tokens: Sequence[Tokens], tokenizer: Any
) -> tuple[list[Tokens], list[Tokens] | None]:
    """Training examples as a method wants them, and those of its second task, if it has one."""
    if method == "explain_then_answer":
        return rationale_then_answer(tokens), None
    if method == "answer_then_explain":
        return answer_then_rationale(tokens), None
    if method == "step_by_step":
        # The word that every rationale starts with asks for one, too.
        word = tokenizer(EXPLANATION, add_special_tokens=False)["input_ids"]
        opening = int(tokens[0].input_ids[0] in openings(tokenizer))
        return list(tokens), explanation_task(tokens, word, opening)
    return list(tokens), None


def rationale_then_answer(tokens: Sequence[Tokens]) -> list[Tokens]:
    """Training examples of `explain_then_answer`: each as an open one whose answer is R and O.

    Where there is no rationale, the answer is all that is to be written.
    """
    return [_written(example, _closed_rationale(example) + _right(example)) for example in tokens]


def answer_then_rationale(tokens: Sequence[Tokens]) -> list[Tokens]:
    """Training examples of `answer_then_explain`: each as an open one whose answer is O and R."""
    return [_written(example, _right(example) + _closed_rationale(example)) for example in tokens]


def after_rationales(tokens: Sequence[Tokens], rationales: Sequence[Sequence[int]]) -> list[Tokens]:
    """Questions whose choices are to be scored behind the rationales that a model has written."""
    return [
        replace(example, prefix_ids=list(ids))
        for example, ids in zip(tokens, rationales, strict=True)
    ]


def explanation_task(tokens: Sequence[Tokens], word: Sequence[int], opening: int) -> list[Tokens]:
    """The second task of `step_by_step`, with the same rows: the task input behind the tokens of
    a word that asks for the rationale, and the rationale as the answer.

    `opening` is the number of special tokens at the start of a task input; they stay there. What
    an example without a rationale would have to write has no weight in the loss.
    """
    return [
        replace(
            _written(example, _closed_rationale(example) or _right(example)),
            input_ids=[*example.input_ids[:opening], *word, *example.input_ids[opening:]],
        )
        for example in tokens
    ]


def _written(example: Tokens, ids: list[int]) -> Tokens:
    return replace(example, choice_ids=[ids], choice_spans=[], answer=0, open=True, content=[])


def _closed_rationale(example: Tokens) -> list[int]:
    """The rationale with the token that closes an answer; decoder-only models read it without."""
    ids, closing = example.rationale_ids, _right(example)[-1]
    return [*ids, closing] if ids and ids[-1] != closing else ids


def _right(example: Tokens) -> list[int]:
    return example.choice_ids[example.answer]
