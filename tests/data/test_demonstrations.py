"""Demonstrations before task inputs: which ones, where, and what does not fit."""

from dataclasses import replace
from pathlib import Path

import pytest
from small import EXAMPLES, tokens_of

from knife.data.demonstrations import (
    Demonstrations,
    draw_shots,
    put_before,
    saved_demonstrations,
    solved_text,
)
from knife.data.example import Example
from knife.data.tokens import closes
from knife.models.tokenizer import load_tokenizer

SKY = Example("sky", "what colour is the sky ?", ("blue", "red"), 0, "air scatters blue light")
SEA = Example("sea", "what colour is the sea at noon ?", ("blue", "red"), 0)
DOG = Example("dog", "how many legs has a dog ?", ("four", "two"), 0, "dogs walk on all fours")
TRAINING = [SKY, SEA, DOG]


def test_a_solved_example_has_question_rationale_and_answer() -> None:
    start = "question: what colour is the sky ? choices: (a) blue (b) red"
    expected = f"{start} explanation: air scatters blue light answer: blue"
    assert solved_text(SKY, rationale=True) == expected
    assert solved_text(SKY, rationale=False) == f"{start} answer: blue"
    assert solved_text(SEA, rationale=True).endswith("(b) red answer: blue")
    opened = replace(SKY, choices=("blue",), rationale=None)
    assert solved_text(opened, rationale=True) == "question: what colour is the sky ? answer: blue"


def test_shots_are_drawn_by_the_seed_alone() -> None:
    drawn = draw_shots(EXAMPLES, 3, 0, rationales=False)
    assert len(drawn) == len(set(drawn)) == 3
    assert draw_shots(EXAMPLES[::-1], 3, 0, rationales=False) == drawn
    assert draw_shots(EXAMPLES, 3, 1, rationales=False) != drawn
    # More demonstrations include these.
    assert draw_shots(EXAMPLES, 5, 0, rationales=False)[:3] == drawn
    explained = draw_shots(EXAMPLES, 1000, 0, rationales=True)
    assert (
        len(explained) == sum(example.rationale is not None for example in EXAMPLES) < len(EXAMPLES)
    )
    assert all("explanation:" in text for text in explained)


def test_the_most_similar_example_is_another_one() -> None:
    demonstrations = Demonstrations([], TRAINING)
    new = Example("new", "how many legs has a cat ?", ("four", "two"), 0)
    texts = demonstrations.texts([SKY, SEA, new])
    expected = [solved_text(example, rationale=True) for example in (SEA, SKY, DOG)]
    # Ids of another data set may be the same by accident.
    assert demonstrations.texts([replace(new, id="dog")]) == [[expected[2]]]
    assert texts == [[text] for text in expected]
    assert Demonstrations([], [SKY]).texts([SKY, new]) == [[], [solved_text(SKY, rationale=True)]]


def test_of_equally_similar_examples_the_first_is_taken() -> None:
    many = [replace(SEA, id=f"sea{n}", rationale=f"it is the sea {n}") for n in range(40)]
    # In any order and any number: none is chosen by how a library partitions scores.
    for training in (many, many[::-1], [DOG, *many[7:], SKY]):
        first = next(example for example in training if example.question == SEA.question)
        demonstrations = Demonstrations([], training)
        assert (
            demonstrations.texts([SEA, replace(SEA, id="x")])
            == [[solved_text(first, rationale=True)]] * 2
        )
        second = next(e for e in training if e.question == SEA.question and e is not first)
        assert demonstrations.texts([first]) == [[solved_text(second, rationale=True)]]


def test_demonstrations_are_saved_with_their_model(tmp_path: Path) -> None:
    assert saved_demonstrations(tmp_path) is None
    Demonstrations([], TRAINING).save(tmp_path)
    found = saved_demonstrations(tmp_path)
    assert found is not None
    assert found.texts([DOG]) == Demonstrations([], TRAINING).texts([DOG])
    (tmp_path / "retrieve.jsonl").unlink()
    Demonstrations(["one", "two"]).save(tmp_path)
    found = saved_demonstrations(tmp_path)
    assert found is not None
    assert found.texts([DOG, SKY]) == [["one", "two"]] * 2


@pytest.mark.parametrize("most", [1000, 60, 40, 0])
def test_the_farthest_examples_are_left_out_and_task_inputs_never(
    model_folder: Path, most: int
) -> None:
    tokenizer = load_tokenizer(model_folder, "model")
    tokens, _ = tokens_of(model_folder, EXAMPLES)
    texts = draw_shots(EXAMPLES, 3, 0, rationales=False)
    opening = int(tokens[0].input_ids[0] in {tokenizer.cls_token_id, tokenizer.bos_token_id})
    end = "\n" if tokenizer.cls_token_id is None and not closes(tokenizer) else ""
    pieces = [tokenizer(text + end, add_special_tokens=False)["input_ids"] for text in texts]
    placed, left_out = put_before(tokens, [texts] * len(tokens), tokenizer, most)
    without = 0
    for own, before in zip(placed, tokens, strict=True):
        room = most - len(before.input_ids)
        count = next(n for n in (3, 2, 1, 0) if n == 0 or sum(len(p) for p in pieces[-n:]) <= room)
        without += count < 3
        front = [token for piece in pieces[len(pieces) - count :] for token in piece]
        assert own.input_ids == [
            *before.input_ids[:opening],
            *front,
            *before.input_ids[opening:],
        ]
        spans = [own.input_ids[start:end] for start, end in own.choice_spans]
        assert spans == [before.input_ids[start:end] for start, end in before.choice_spans]
    assert left_out == without
    assert without == {1000: 0, 0: len(tokens)}.get(most, without)
