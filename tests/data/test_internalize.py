"""How much of a rationale is left in each epoch."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import EXAMPLES, tokens_of

from knife.config.methods import Internalize
from knife.data.forms import longest_rationale, training_tokens
from knife.data.internalize import Removal
from knife.data.tokens import Tokens
from knife.models.tokenizer import load_tokenizer


@given(st.integers(0, 60), st.integers(2, 40))
def test_by_default_all_is_removed_within_the_first_half_of_the_epochs(
    longest: int, epochs: int
) -> None:
    removal = Removal.of(Internalize(), longest, epochs)
    removed = [removal.at(epoch) for epoch in range(epochs)]
    assert removed[0] == 0
    assert removed == sorted(removed)
    assert removed[max(1, epochs // 2) :] == [longest] * (epochs - max(1, epochs // 2))
    assert removal.note(epochs) is None


def test_so_many_tokens_are_removed_as_the_config_says() -> None:
    removal = Removal.of(Internalize(tokens_each_epoch=3), 8, 5)
    assert [removal.at(epoch) for epoch in range(5)] == [0, 3, 6, 8, 8]
    # The optimizer begins anew where the task changes.
    assert [removal.anew(epoch) for epoch in range(5)] == [False, True, True, True, False]


def test_what_is_never_removed_is_said() -> None:
    found = Removal.of(Internalize(tokens_each_epoch=2), 8, 4).note(4)
    assert found is not None
    assert "6 tokens are removed in the last of 4 epochs, but the longest rationale has 8" in found
    assert Removal.of(Internalize(), 8, 1).note(1) is not None


def test_the_front_of_rationales_is_removed_and_then_the_answer_is_all(model_folder: Path) -> None:
    tokens: Sequence[Tokens] = tokens_of(model_folder, EXAMPLES)[0]
    tokenizer = load_tokenizer(model_folder, "model")
    longest = longest_rationale(tokens)
    removal = Removal(1, longest)
    found, second = training_tokens("internalize", tokens, tokenizer, removal)
    whole, _ = training_tokens("explain_then_answer", tokens, tokenizer)
    assert second is None
    assert list(found) == list(whole)
    assert longest == max(
        len(w.choice_ids[0]) - len(t.choice_ids[t.answer])
        for w, t in zip(whole, tokens, strict=True)
    )
    for epoch in (1, 4, longest - 1, longest, longest + 5):
        removal.begin(epoch)
        for own, full, before in zip(found, whole, tokens, strict=True):
            answer = before.choice_ids[before.answer]
            rationale = full.choice_ids[0][: -len(answer)]
            assert own.choice_ids == [[*rationale[epoch:], *answer]]
            assert own.input_ids == before.input_ids
            assert (own.open, own.answer) == (True, 0)
    assert [own.choice_ids[0] for own in found] == [t.choice_ids[t.answer] for t in tokens]


@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_reads_the_same_wherever_a_training_resumes(epoch: int) -> None:
    one, other = Removal(2, 9), Removal(2, 9)
    for number in range(epoch + 1):
        one.begin(number)
    other.begin(epoch)
    assert one == other
