"""The forms of examples in which methods that generate rationales are trained and evaluated.

- `explain_then_answer` (I -> RO): generates the rationale, then the answer.
- `answer_then_explain` (I -> OR): generates the answer, then the rationale.
- `internalize` (Deng et al. 2024, arXiv 2405.14838): the first of these without the first tokens of
  the rationale, more and more of them, until the answer alone is left.
- `step_by_step` (Hsieh et al. 2023, arXiv 2305.02301, section 3.2): generates the answer from the
  task input, and the rationale from the task input after a word that asks for it.

Rationale and answer each end with the closing special token: as with every other method, a choice
is scored, and an answer generated, up to that token.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from knife.data.internalize import Removal
from knife.data.token_table import Changed
from knife.data.tokens import EXPLANATION, Tokens, openings


def training_tokens(
    method: str, tokens: Sequence[Tokens], tokenizer: Any, removal: Removal | None = None
) -> tuple[Sequence[Tokens], Sequence[Tokens] | None]:
    """Return training examples in a method's form, and those of its second task, if it has one.

    `removal` is what `internalize` removes, by default nothing; those returned change with it.
    """
    if method in ("explain_then_answer", "internalize"):
        gone = removal or Removal(0, 0)
        # Without a rationale, only the answer is to be generated.
        return Changed(
            tokens, lambda e: _written(e, closed_rationale(e)[gone.removed :] + _right(e))
        ), None
    if method == "answer_then_explain":
        return Changed(tokens, lambda e: _written(e, _right(e) + closed_rationale(e))), None
    if method == "step_by_step":
        return tokens, explanation_task(tokens, tokenizer)
    return tokens, None


def longest_rationale(tokens: Sequence[Tokens]) -> int:
    """Return how many tokens the longest rationale has with its closing token."""
    return max((len(closed_rationale(each)) for each in tokens), default=0)


def with_prefixes(tokens: Sequence[Tokens], prefixes: Sequence[Sequence[int]]) -> list[Tokens]:
    """Return examples after what a model wrote before: their choices are scored behind it, and what
    is generated begins with it."""
    pairs = zip(tokens, prefixes, strict=True)
    return [replace(example, prefix_ids=list(ids)) for example, ids in pairs]


def explanation_task(tokens: Sequence[Tokens], tokenizer: Any) -> Sequence[Tokens]:
    """Return the second task of `step_by_step`, with the same rows: the task input after a word
    that asks for the rationale, and the rationale as the answer; without one, an example has no
    weight in the loss."""
    asked = asked_to_explain(tokens, tokenizer)
    return Changed(
        tokens,
        lambda example: replace(
            _written(example, closed_rationale(example) or _right(example)),
            input_ids=asked(example),
        ),
    )


def asked_to_explain(tokens: Sequence[Tokens], tokenizer: Any) -> Callable[[Tokens], list[int]]:
    """Return a function that puts a word that asks for the rationale before the task input of one
    of these examples; the special token at the start, if any, stays first."""
    # The word that every rationale starts with also asks for one.
    word: list[int] = tokenizer(EXPLANATION, add_special_tokens=False)["input_ids"]
    opening = int(tokens[0].input_ids[0] in openings(tokenizer))
    return lambda example: [*example.input_ids[:opening], *word, *example.input_ids[opening:]]


def _written(example: Tokens, ids: list[int]) -> Tokens:
    return replace(
        example, choice_ids=[ids], choice_spans=[], answer=0, open=True, content=[], words=[]
    )


def closed_rationale(example: Tokens) -> list[int]:
    """Return the rationale with the closing token of answers, which decoder-only inputs lack."""
    ids, closing = example.rationale_ids, _right(example)[-1]
    return [*ids, closing] if ids and ids[-1] != closing else ids


def _right(example: Tokens) -> list[int]:
    return example.choice_ids[example.answer]
