"""Examples that are too long are refused with their number, or left out and counted by split."""

from pathlib import Path

import pytest

from knife.cli.show import shown, used_splits
from knife.config.run import Data
from knife.core.errors import UserError
from knife.data.example import Example, Splits
from knife.data.fitting import fitting, input_lengths
from knife.data.jsonl import write_examples
from knife.data.tokenizing import tokenize
from knife.models.source import EMBEDDED
from knife.models.tokenizer import load_tokenizer


def make(name: str, *words: int) -> list[Example]:
    return [
        Example(f"{name}{n}", "frog " * count + "?", ("yes", "no"), n % 2, "a frog lays eggs .")
        for n, count in enumerate(words)
    ]


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return load_tokenizer(EMBEDDED["tiny-t5"], "model")


def test_what_is_too_long_is_left_out_of_each_split_and_counted(tokenizer: object) -> None:
    splits = Splits(make("t", 3, 90, 4, 95), make("d", 5, 6), make("x", 99, 2), ["before"])
    found = fitting(splits, tokenizer, 60)
    assert [e.id for e in found.train] == ["t0", "t2"]
    assert found.dev == splits.dev
    assert [e.id for e in found.test] == ["x1"]
    assert found.left_out == {"train": 2, "test": 1}
    said = "since their questions are longer than data.max_tokens (data.too_long=drop)"
    assert found.notes == [
        "before",
        f"2 of 4 train examples are left out, {said}: 't1', 't3'",
        f"1 of 2 test examples are left out, {said}: 'x0'",
    ]
    # The rest fits by the same measure that training applies.
    tokenize([*found.train, *found.dev, *found.test], tokenizer, 60)
    (short,) = input_lengths(make("d", 5), tokenizer)
    assert fitting(Splits(make("d", 5), [], []), tokenizer, short).left_out == {}
    with pytest.raises(UserError, match="drop leaves no train example: all 1 task inputs"):
        fitting(Splits(make("d", 5), [], []), tokenizer, short - 1)


def test_what_is_too_long_is_refused_with_the_way_out(tokenizer: object) -> None:
    with pytest.raises(UserError) as caught:
        tokenize(make("t", 3, 90), tokenizer, 60)
    (error,) = caught.value.errors
    assert error.startswith("data.max_tokens: 1 of 2 task inputs are longer than 60 tokens")
    assert error.endswith("(data.too_long=drop)")


def test_data_is_shown_without_what_is_left_out(tmp_path: Path) -> None:
    write_examples(tmp_path / "train.jsonl", make("t", 90, 3, 4))
    write_examples(tmp_path / "dev.jsonl", make("d", 3))
    write_examples(tmp_path / "test.jsonl", make("x", 3))
    data = Data(source=str(tmp_path), max_tokens=60, too_long="drop")
    train = used_splits(data, "tiny-t5").train
    assert [example.id for example in train] == ["t1", "t2"]
    assert shown(train, data, "tiny-t5")
