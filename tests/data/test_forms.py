"""What the methods that generate rationales learn, token by token."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from small import EXAMPLES, tokens_of

from knife.data.forms import training_tokens, with_prefixes
from knife.data.tokens import Tokens
from knife.models.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokens(model_folder: Path) -> Sequence[Tokens]:
    return tokens_of(model_folder, EXAMPLES)[0]


def closed(example: Tokens) -> list[int]:
    """Return the rationale, followed by the token that closes every answer."""
    ids, closing = example.rationale_ids, example.choice_ids[0][-1]
    return ids + [closing] * (bool(ids) and ids[-1] != closing)


@pytest.mark.parametrize("method", ["finetune", "knife", "rationale_input", "retrieve", "prompt"])
def test_most_methods_learn_from_examples_as_they_are(
    model_folder: Path, tokens: list[Tokens], method: str
) -> None:
    assert training_tokens(method, tokens, load_tokenizer(model_folder, "model")) == (tokens, None)


@pytest.mark.parametrize("method", ["explain_then_answer", "answer_then_explain"])
def test_rationale_and_answer_are_written_as_one(
    model_folder: Path, tokens: list[Tokens], method: str
) -> None:
    made, second = training_tokens(method, tokens, load_tokenizer(model_folder, "model"))
    assert second is None
    assert any(t.rationale_ids for t in tokens)
    assert not all(t.rationale_ids for t in tokens)
    for own, before in zip(made, tokens, strict=True):
        answer = before.choice_ids[before.answer]
        rationale = closed(before)
        whole = rationale + answer if method == "explain_then_answer" else answer + rationale
        assert own.choice_ids == [whole]
        assert own.open
        assert own.answer == 0
        assert own.input_ids == before.input_ids
        # Each part ends with the closing token, so that a choice ends as usual.
        assert whole.count(answer[-1]) == 1 + bool(before.rationale_ids)


def test_the_second_task_of_step_by_step_asks_for_the_rationale(
    model_folder: Path, tokens: list[Tokens]
) -> None:
    tokenizer = load_tokenizer(model_folder, "model")
    first, second = training_tokens("step_by_step", tokens, tokenizer)
    assert first == tokens
    assert second is not None
    word = tokenizer("explanation:", add_special_tokens=False)["input_ids"]
    specials = {tokenizer.cls_token_id, tokenizer.bos_token_id}
    opening = [token for token in tokens[0].input_ids[:1] if token in specials]
    for own, before in zip(second, tokens, strict=True):
        assert own.input_ids == [*opening, *word, *before.input_ids[len(opening) :]]
        if before.rationale_ids:
            assert own.choice_ids == [closed(before)]
        # This leaves examples without a rationale out of the loss.
        assert own.rationale_ids == before.rationale_ids


def test_choices_stand_behind_what_was_written(tokens: list[Tokens]) -> None:
    asked = with_prefixes(tokens[:2], [[5, 6], [7]])
    assert asked == [replace(tokens[0], prefix_ids=[5, 6]), replace(tokens[1], prefix_ids=[7])]
