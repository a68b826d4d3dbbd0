"""The points at which states are compared: against plain loops, and of unlike tokenizers."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from small import batch_of
from torch import Tensor

from knife.config.run import InputTokens
from knife.data.batches import Batch
from knife.data.tokens import Tokens
from knife.method.alignment import state_distance
from knife.method.points import Points, TaskInput, at_points, points

Span = tuple[int, int]


def example(words: list[Span]) -> Tokens:
    return Tokens([1] * len(words), [2], [[3]], [], 0, words=words)


def batch(*examples: list[Span]) -> Batch:
    return batch_of([example(words) for words in examples], 0, rationale=False)


def distance(tokens: InputTokens, student: Batch, teacher: Batch, states: Sequence[Tensor]) -> Any:
    """Return the mean squared distance of given states of student and teacher."""
    at = points(tokens, student, TaskInput.of(teacher))
    mine, theirs = at_points(states[0], at.student_BNI), at_points(states[1], at.teacher_BNI)
    return state_distance(mine, theirs, at.mask_BN, "mse", 1.0)


def test_words_by_hand() -> None:
    """The student's tokens are of the words 0, 0 and 1, the teacher's of 0, 1 and 2, and 1; each
    has a special token, and the teacher's word 2 is lost to the student."""
    student = batch([(0, 1), (0, 1), (1, 2), (0, 0)])
    teacher = batch([(0, 0), (0, 1), (1, 3), (1, 2)])
    mine = torch.tensor([[[1.0], [3.0], [7.0], [90.0]]])
    theirs = torch.tensor([[[90.0], [5.0], [1.0], [2.0]]])
    # Words: (1 + 3) / 2 and 5; 7 and (1 + 2) / 2.
    expected = (3.0**2 + 5.5**2) / 2
    assert distance("words", student, teacher, [mine, theirs]).tolist() == [expected]


def by_loop(student: Tokens, teacher: Tokens, mine: Tensor, theirs: Tensor) -> float:
    """Return the distance of an example by words, as docs/alignment.md says."""
    found = []
    for word in range(20):
        both = []
        for tokens, states in ((student, mine), (teacher, theirs)):
            own = [states[i] for i, (first, end) in enumerate(tokens.words) if first <= word < end]
            both += [torch.stack(own).mean(0)] if own else []
        if len(both) == 2:
            found.append(float((both[0] - both[1]).square().mean()))
    return sum(found) / len(found) if found else 0.0


def test_words_are_those_of_a_plain_loop_at_any_padding() -> None:
    generator = random.Random(0)

    def drawn() -> Tokens:
        words = []
        for _ in range(generator.randint(1, 9)):
            first = generator.randint(0, 6)
            words.append((first, first + generator.randint(0, 3)))
        return example([pair if pair[0] < pair[1] else (0, 0) for pair in words])

    torch.manual_seed(0)
    for _ in range(20):
        pairs = [(drawn(), drawn()) for _ in range(5)]
        one, other = (batch_of([pair[n] for pair in pairs], 0, rationale=False) for n in (0, 1))
        states = [torch.randn(*each.ids_BL.shape, 3) for each in (one, other)]
        found = distance("words", one, other, states)
        expected = [by_loop(*pairs[b], states[0][b], states[1][b]) for b in range(5)]
        assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_the_mean_is_over_each_models_own_tokens() -> None:
    student, teacher = batch([(0, 1)] * 2, [(0, 1)]), batch([(0, 1)], [(0, 1)] * 3)
    mine = torch.tensor([[[1.0], [3.0]], [[4.0], [90.0]]])
    theirs = torch.tensor([[[5.0], [90.0], [90.0]], [[1.0], [2.0], [3.0]]])
    assert distance("mean", student, teacher, [mine, theirs]).tolist() == [9.0, 4.0]


def test_tokens_that_are_words_are_compared_as_all_tokens_are() -> None:
    one = batch([(0, 1), (1, 2), (2, 3)], [(0, 1)])
    torch.manual_seed(0)
    states = [torch.randn(2, 3, 4) for _ in range(2)]
    found = distance("words", one, one, states)
    assert found.tolist() == pytest.approx(distance("all", one, one, states).tolist())


def test_an_example_without_common_words_has_no_alignment() -> None:
    student, teacher = batch([(0, 1), (1, 2)], []), batch([(0, 0), (2, 3)], [(0, 1)])
    for one, other in ((student, teacher), (teacher, student)):
        states = [torch.randn(*each.ids_BL.shape, 4, requires_grad=True) for each in (one, other)]
        found = distance("words", one, other, states)
        assert found.tolist() == [0.0, 0.0]
        (gradient,) = torch.autograd.grad(found.sum(), states[0])
        assert not gradient.any()


@pytest.mark.parametrize("tokens", ["all", "content"])
def test_other_tokens_are_not_compared_one_by_one(tokens: InputTokens) -> None:
    one, other = batch([(0, 1)] * 2, [(0, 1)]), batch([(0, 1)] * 2, [(0, 1)] * 2)
    assert isinstance(points(tokens, one, TaskInput.of(one)), Points)
    with pytest.raises(ValueError, match="at other task-input tokens than the student's"):
        points(tokens, one, TaskInput.of(other))
