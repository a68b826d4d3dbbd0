"""Open answers that no tokens can spell are reported before a start."""

from pathlib import Path

from small import tokens_of

from knife.data.example import Example, Splits
from knife.models.source import EMBEDDED
from knife.models.tokenizer import load_tokenizer
from knife.plan.writable import unwritable_notes

KNOWN = Example("known", "where ?", ("The swamp",), 0)
UNKNOWN = Example("unknown", "where ?", ("地下",), 0)
CHOICES = Example("choices", "where ?", ("地下", "swamp"), 0)


def notes(folder: Path, train: list[Example], test: list[Example]) -> list[str]:
    splits = Splits(train, [], test)
    tokens = {name: tokens_of(folder, part)[0] for name, part in splits.parts.items()}
    return unwritable_notes(splits, tokens, load_tokenizer(folder, "model"), "m")


def test_an_answer_of_unknown_tokens_is_named() -> None:
    (note,) = notes(EMBEDDED["tiny-t5"], [KNOWN, KNOWN], [KNOWN, UNKNOWN])
    assert note.startswith(
        "in 1 of 2 test examples no generated answer can be right, as no tokens spell it (m): "
        "'unknown' (\"地下\" is written as "
    )


def test_other_answers_are_not(tiny_llama: Path) -> None:
    for folder in (EMBEDDED["tiny-t5"], EMBEDDED["tiny-llama"], tiny_llama):
        assert notes(folder, [KNOWN], [KNOWN]) == []
        assert notes(folder, [CHOICES], [CHOICES]) == []


def test_bytes_spell_everything(tiny_gpt2: Path) -> None:
    assert notes(tiny_gpt2, [UNKNOWN], [KNOWN]) == []
