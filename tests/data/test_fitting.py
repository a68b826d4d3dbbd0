"""Examples that are too long are refused with their number, or left out or cut and counted."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from knife.cli.show import shown, used_splits
from knife.config.columns import Columns
from knife.config.run import Data
from knife.core.errors import UserError
from knife.data.cutting import cut_to_fit, input_lengths
from knife.data.digest import digests
from knife.data.example import Example, Splits
from knife.data.examples import Examples
from knife.data.fitting import fitting
from knife.data.jsonl import read_rows, write_examples
from knife.data.source import load_source
from knife.data.tables.table import Table
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
    found = fitting(splits, [tokenizer], 60)
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
    (short,) = input_lengths(make("d", 5), [tokenizer])
    assert fitting(Splits(make("d", 5), [], []), [tokenizer], short).left_out == {}
    with pytest.raises(UserError, match="drop leaves no train example: all 1 task inputs"):
        fitting(Splits(make("d", 5), [], []), [tokenizer], short - 1)


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


LIMIT = 60
WORDS = ["frog", "lays", "eggs,", "in", "the", "Pond.", "unbelievably", "(3.5", "é…", "why?"]


def rows(seed: int, *columns: str) -> list[dict[str, str]]:
    """Return rows whose columns have no text, a few words or many."""
    drawn = random.Random(seed)
    found = []
    for number in range(60):
        longest = drawn.choice([3, 30, 400])
        text = {
            name: drawn.choice([" ", "  ", "\n"]).join(
                drawn.choices(WORDS, k=drawn.randint(0, most))
            )
            for name, most in ((name, longest if name == "passage" else 6) for name in columns)
        }
        found.append({**text, "why": f"which {number}", "id": f"{number}", "answer": "yes"})
    return found


def read(given: list[dict[str, str]], question: list[str], cut: str | None) -> Examples:
    columns = Columns(question=question, choices=["yes", "no"], answer="answer", id="id")
    return read_rows(Table(list(given[0]), given), columns, "here", cut=cut).examples


def ends_of(text: str) -> list[int]:
    """Return where each number of first words of a text ends."""
    ends, at = [0], 0
    for word in text.split():
        at = text.index(word, at) + len(word)
        ends.append(at)
    return ends


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert", "tiny-llama"])
@pytest.mark.parametrize("question", [["passage", "why"], ["why", "passage"],
                                      ["first", "passage", "why"]])  # fmt: skip
def test_a_part_keeps_as_many_words_as_fit(model: str, question: list[str]) -> None:
    tokenizer = load_tokenizer(EMBEDDED[model], "model")
    given = rows(len(question), "first", "passage")
    whole = read(given, question, "passage")
    assert digests(whole) == digests(read(given, question, None))
    found = cut_to_fit(Splits(whole, whole[:0], whole[:0]), [tokenizer], LIMIT, "passage")
    lengths = input_lengths(whole, [tokenizer])
    assert max(input_lengths(found.train, [tokenizer])) <= LIMIT < max(lengths)
    lost = []
    for row, before, after, length in zip(given, whole, found.train, lengths, strict=True):
        if length <= LIMIT:
            assert after == before
            continue

        def cut_to(words: int, row: dict[str, str] = row) -> Example:
            """Return the example of the row as if its passage had only so many words."""
            end = ends_of(row["passage"])[words]
            (one,) = read([{**row, "passage": row["passage"][:end]}], question, None)
            return one

        count = len(row["passage"].split())
        kept = [n for n in range(count) if cut_to(n).question == after.question]
        assert kept, (before.question, after.question)
        assert input_lengths([cut_to(kept[-1] + 1)], [tokenizer]) > [LIMIT]
        assert (after.id, after.choices, after.answer) == (before.id, before.choices, before.answer)
        lost.append(count - kept[-1])
    assert found.notes[0] == (
        f"{len(lost)} of 60 train examples are cut to fit data.max_tokens, by at most {max(lost)} "
        "words of passage (data.too_long=cut:passage)"
    )
    assert found.left_out == {}


def test_a_column_of_several_texts_is_one_part(tokenizer: object) -> None:
    row: dict[str, Any] = {"passage": ["A frog", " ", "lays eggs"], "why": "Why?", "answer": "yes"}
    given = [{**row, "id": "a"}, {**row, "passage": [], "id": "b"}]
    found = read(given, ["passage", "why"], "passage")
    assert found[0].question == "A frog. lays eggs. Why?"
    assert found.parts([0, 1]) == [(0, len("A frog. lays eggs.")), (0, 0)]
    (length,) = input_lengths(read([{**given[0], "passage": "A frog. lays"}], ["passage", "why"],
                                   None), [tokenizer])  # fmt: skip
    cut = cut_to_fit(Splits(found, [], []), [tokenizer], length, "passage")
    assert cut.train[0].question == "A frog. lays. Why?"
    assert cut.train[1] == found[1]


def test_a_question_of_its_own_is_cut_but_never_empty(tokenizer: object) -> None:
    splits = Splits(make("t", 3, 90), make("d", 5), make("x", 99, 2))
    found = cut_to_fit(splits, [tokenizer], LIMIT, "question")
    assert found.dev == splits.dev
    assert (found.train[0], found.test[1]) == (splits.train[0], splits.test[1])
    words = [len(found.train[1].question.split()), len(found.test[0].question.split())]
    assert words[0] == words[1] > 10
    said = "are cut to fit data.max_tokens, by at most {} words of question (data.too_long={})"
    cut = "cut:question"
    assert found.notes == [
        f"1 of 2 train examples {said.format(91 - words[0], cut)}",
        f"1 of 2 test examples {said.format(100 - words[1], cut)}",
        "once cut, 1 of the 2 questions of test are also in train",
    ]
    shortest = [Example("a", "frog", ("yes", "no"), 0)]
    (least,) = input_lengths(shortest, [tokenizer])
    assert cut_to_fit(splits, [tokenizer], least, cut[4:]).train[0].question == "frog"
    with pytest.raises(UserError) as caught:
        cut_to_fit(splits, [tokenizer], least - 1, cut[4:])
    assert caught.value.errors == [
        f"data.too_long: cut:question: {count} {name} examples are longer than data.max_tokens="
        f"{least - 1} however much of question is cut (the longest then has {least}): {ids}; raise "
        "data.max_tokens, or use drop"
        for name, count, ids in (
            ("train", "2 of 2", "'t0', 't1'"),
            ("dev", "1 of 1", "'d0'"),
            ("test", "2 of 2", "'x0', 'x1'"),
        )
    ]


def test_what_else_is_too_long_is_refused(tokenizer: object) -> None:
    given = [
        {"passage": "A frog.", "why": why, "id": why[:3], "answer": "yes"}
        for why in ("how?", "eggs " * 90, "legs " * 70)
    ]
    whole = read(given, ["passage", "why"], "passage")
    without = read([{**row, "passage": ""} for row in given], ["passage", "why"], None)
    longest = max(input_lengths(without, [tokenizer]))
    with pytest.raises(UserError) as caught:
        cut_to_fit(Splits(whole, [], []), [tokenizer], LIMIT, "passage")
    assert caught.value.errors == [
        "data.too_long: cut:passage: 2 of 3 train examples are longer than data.max_tokens=60 "
        f"however much of passage is cut (the longest then has {longest}): 'egg', 'leg'; raise "
        "data.max_tokens, or use drop"
    ]


def test_a_column_to_cut_is_one_of_the_question(tmp_path: Path) -> None:
    given = [{"passage": "A.", "question": "B?", "answer": "x", "id": f"{n}"} for n in range(9)]
    table = tmp_path / "train.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in given))

    def errors(too_long: str, source: Path | str = table, **columns: Any) -> list[str]:
        mapped = Columns(**columns) if columns else None
        with pytest.raises(UserError) as caught:
            load_source(Data(source=str(source), too_long=too_long, columns=mapped))
        return caught.value.errors

    none = "has no such column of the question; use"
    assert errors("cut:passage") == [f"data.too_long: cut:passage: {table} {none} cut:question"]
    assert errors("cut:passage", "creatures") == [
        f"data.too_long: cut:passage: creatures {none} cut:question"
    ]
    both: dict[str, Any] = {"question": ["passage", "question"], "choices": []}
    assert errors("cut:answer", **both, answer="anser") == [
        f"data.columns.answer: {table} has no column 'anser'; did you mean 'answer'?",
        f"data.too_long: cut:answer: {table} {none} cut:passage or cut:question",
    ]
    # The question's column is guessed here.
    assert errors("cut:passage", choices=[]) == [
        f"data.too_long: cut:passage: {table} {none} cut:question"
    ]
    for wrong in ("cut", "cut:", "cut: x", "keep"):
        with pytest.raises(ValueError, match="must be refuse, drop or cut:COLUMN, but got"):
            Data(source="x", too_long=wrong)


def test_data_is_shown_with_what_is_cut(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        write_examples(tmp_path / f"{name}.jsonl", make(name, 90, 3))
    data = Data(source=str(tmp_path), max_tokens=LIMIT, too_long="cut:question")
    used = used_splits(data, "tiny-t5")
    assert [example.id for example in used.train] == ["train0", "train1"]
    assert len(used.train[0].question) < 90 * 5
    assert any(note.startswith("1 of 2 dev examples are cut to fit") for note in used.notes)
    assert shown(used.train, data, "tiny-t5")
