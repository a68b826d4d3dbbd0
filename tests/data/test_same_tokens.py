"""Choices with the same tokens, by normalisation or as unknown words, for every family."""

from dataclasses import replace
from pathlib import Path

import pytest
from small import tokens_of, wide, with_compatible_letters

from knife.data.example import Example, Splits
from knife.data.same_tokens import first_alike, look_for_same_tokens
from knife.data.tokens import Tokens

WIDE = wide("forest")
SAME = Example(
    "same", "which one ?", ("forest", "swamp", WIDE, wide("swamp"), "no"), 2, "it is that ."
)
PAIR = f'"forest" = "{WIDE}"'
PLAIN = Example("plain", "is it ?", ("yes", "no"), 0)
WRONG = replace(SAME, id="wrong", answer=4)


@pytest.fixture(scope="module")
def compatible(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_compatible_letters(model_folder, tmp_path_factory.mktemp("models") / "nfkc")


def test_normalised_choices_are_alike_for_every_family(
    compatible: Path, model_folder: Path
) -> None:
    (same, plain), _ = tokens_of(compatible, [SAME, PLAIN])
    assert first_alike(same) == [0, 1, 0, 1, 4]
    assert first_alike(plain) == [0, 1]
    # Without normalisation a byte-level tokenizer distinguishes all texts.
    if "llama" in model_folder.name or "gpt2" in model_folder.name:
        (same,), _ = tokens_of(model_folder, [SAME])
        assert first_alike(same) == [0, 1, 2, 3, 4]


def test_words_that_are_one_unknown_token_are_alike(tiny_bert: Path) -> None:
    unknown = Example("z", "which one ?", ("地下", "yes", "山血", "YES"), 0)
    (found,), _ = tokens_of(tiny_bert, [unknown])
    # Also letters that the tokenizer lowercases.
    assert first_alike(found)[1] == first_alike(found)[3] == 1
    single = replace(unknown, choices=("地", "yes", "山", "no"))
    (found,), _ = tokens_of(tiny_bert, [single])
    assert first_alike(found) == [0, 1, 0, 3]


def test_an_encoder_scores_choices_where_they_are_listed() -> None:
    listed = Tokens([5, 6, 7, 6, 7, 8], [], [[1], [2], [3]], [(1, 3), (3, 5), (5, 6)], 0)
    assert first_alike(listed) == [0, 0, 2]
    assert first_alike(replace(listed, choice_ids=[[1], [2], [1]])) == [0, 0, 0]
    opened = Tokens([5, 6], [], [[1, 2]], [], 0, open=True, answer_text="x")
    assert first_alike(opened) == [0]
    assert first_alike(replace(opened, choice_ids=[])) == []


def look(folder: Path, *splits: list[Example]) -> tuple[list[str], list[str]]:
    train, dev, test = splits
    whole = Splits(train, dev, test, [])
    tokens = {name: tokens_of(folder, part)[0] for name, part in whole.parts.items()}
    found = look_for_same_tokens(whole, tokens, "m")
    # The quick look at a table finds the same as one at every example.
    each = {name: list(part) for name, part in tokens.items()}
    assert look_for_same_tokens(whole, each, "m") == found
    return found


def numbered(example: Example, count: int) -> list[Example]:
    return [replace(example, id=f"{example.id}{n}") for n in range(count)]


@pytest.fixture(scope="module")
def bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_compatible_letters(tiny_bert, tmp_path_factory.mktemp("models") / "nfkc")


def test_a_split_without_right_choices_to_tell_apart_is_refused(bert: Path) -> None:
    errors, notes = look(bert, numbered(SAME, 5), [PLAIN], numbered(SAME, 2))
    assert notes == []
    (error,) = errors
    assert error.startswith(
        "data.source: in 5 of 5 train, 2 of 2 test examples the right choice and a wrong one "
        "become the same tokens (m), so that no model can tell them apart: "
        f"'same0' ({PAIR}), 'same1' ({PAIR}), 'same2' ({PAIR}), and 4 more; give a model"
    )


def test_half_of_a_split_is_noted(bert: Path) -> None:
    half = [SAME, PLAIN]
    errors, notes = look(bert, half, [PLAIN], half)
    assert errors == []
    listed = f"'same' ({PAIR}), 'same' (\"swamp\" = \"{wide('swamp')}\")"
    assert notes == [
        f"in 1 of 2 train examples choices become the same tokens (m): {listed}; in 1 the right "
        "choice is one of them, which no model can learn",
        f"in 1 of 2 test examples choices become the same tokens (m): {listed}; in 1 the right "
        "choice is one of them: a tie of k choices counts 1/k at most",
    ]


def test_wrong_choices_that_are_alike_are_noted(bert: Path) -> None:
    errors, notes = look(bert, [WRONG, replace(WRONG, id="two")], [PLAIN], [PLAIN])
    assert errors == []
    (note,) = notes
    assert note.startswith("in 2 of 2 train examples choices become the same tokens (m): 'wrong' (")
    assert note.endswith("; the right choice is none of them")


def test_nothing_is_said_of_other_choices(bert: Path) -> None:
    opened = Example("o", "who ?", (WIDE,), 0)
    assert look(bert, [PLAIN], [PLAIN], [PLAIN]) == ([], [])
    assert look(bert, [opened], [opened], [opened]) == ([], [])
