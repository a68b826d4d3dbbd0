"""Sources: folders and files, the splits that are made, and all errors at once."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from knife.config.run import Data, World
from knife.core.errors import UserError
from knife.data.example import Example, Splits
from knife.data.jsonl import write_examples
from knife.data.source import KNOWN_SOURCES, complete, load_source


def make(prefix: str, count: int) -> list[Example]:
    return [
        Example(f"{prefix}{n}", f"Is {prefix} {n} odd?", ("yes", "no"), n % 2, f"{n} is {n}.")
        for n in range(count)
    ]


def folder(path: Path, **splits: list[Example]) -> str:
    path.mkdir(exist_ok=True)
    for name, examples in splits.items():
        write_examples(path / f"{name}.jsonl", examples)
    return str(path)


def errors(source: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_source(Data(source=source))
    return caught.value.errors


@pytest.mark.parametrize("dev", ["dev", "validation", "valid"])
def test_a_folder_with_all_splits_is_taken_as_it_is(tmp_path: Path, dev: str) -> None:
    parts = {"train": make("t", 5), dev: make("d", 2), "test": make("x", 3)}
    loaded = load_source(Data(source=folder(tmp_path, **parts)))
    assert loaded == Splits(parts["train"], parts[dev], parts["test"], [])


def test_without_test_dev_becomes_test(tmp_path: Path) -> None:
    train, dev = make("t", 100), make("d", 7)
    loaded = load_source(Data(source=folder(tmp_path, train=train, dev=dev)))
    assert loaded.test == dev
    assert (len(loaded.train), len(loaded.dev)) == (90, 10)
    assert loaded.notes == [
        "no test split: dev, with 7 examples, became test",
        "no dev split: 10 of the 100 training examples became dev",
    ]


def test_without_dev_a_tenth_of_train_becomes_dev(tmp_path: Path) -> None:
    train, test = make("t", 100), make("x", 7)
    loaded = load_source(Data(source=folder(tmp_path, train=train, test=test)))
    assert loaded.test == test
    assert (len(loaded.train), len(loaded.dev)) == (90, 10)
    assert loaded.notes == ["no dev split: 10 of the 100 training examples became dev"]


@pytest.mark.parametrize("as_folder", [True, False])
def test_train_alone_gives_all_three(tmp_path: Path, as_folder: bool) -> None:
    source = folder(tmp_path, train=make("t", 100))
    loaded = load_source(Data(source=source if as_folder else f"{source}/train.jsonl"))
    parts = (loaded.train, loaded.dev, loaded.test)
    assert [len(part) for part in parts] == [70, 10, 20]
    assert sorted(e.id for part in parts for e in part) == sorted(e.id for e in make("t", 100))
    for part in parts:
        assert len(set(Counter(example.answer for example in part).values())) == 1
    assert loaded.notes == [
        "no test split: 20 of the 100 training examples became test",
        "no dev split: 10 of the 100 training examples became dev",
    ]


def test_made_splits_depend_on_the_seed_and_on_no_file_order(tmp_path: Path) -> None:
    source = folder(tmp_path / "one", train=make("t", 60))
    turned = folder(tmp_path / "two", train=make("t", 60)[::-1])
    first = load_source(Data(source=source))
    assert load_source(Data(source=source)) == first
    again = load_source(Data(source=turned))
    assert {e.id for e in again.dev} == {e.id for e in first.dev}
    assert {e.id for e in again.test} == {e.id for e in first.test}
    assert load_source(Data(source=source, split_seed=1)).test != first.test


@pytest.mark.parametrize("dev", [0, 1])
@pytest.mark.parametrize("test", [0, 1])
@pytest.mark.parametrize("train", range(5))
def test_small_sources_give_three_splits_or_a_error(train: int, dev: int, test: int) -> None:
    given = Splits(make("t", train), make("d", dev), make("x", test))
    if train >= 3 - dev - test:
        made = complete(given, 0)
        assert all((made.train, made.dev, made.test))
    else:
        with pytest.raises(UserError, match=f"{train} training examples are too few"):
            complete(given, 0)


def test_errors_of_all_files_at_once(tmp_path: Path) -> None:
    source = folder(tmp_path, train=make("t", 2), test=make("x", 2), dev=make("t", 1))
    (tmp_path / "valid.jsonl").write_text("{\n")
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write("[]\n")
    found = errors(source)
    assert found[0] == f"{tmp_path}: dev is in dev.jsonl, valid.jsonl; keep one of them"
    assert found[1].startswith(f"{tmp_path}/valid.jsonl:2: broken JSON at column 1")
    assert found[2].startswith(f"{tmp_path}/test.jsonl:3: must be a JSON object")
    assert found[3] == f"{tmp_path}: id 't0' is in train and in dev"
    assert len(found) == 4


def test_all_splits_hold_one_kind_of_question(tmp_path: Path) -> None:
    opened = [replace(example, choices=("so it is",), answer=0) for example in make("x", 2)]
    source = folder(tmp_path, train=make("t", 2), dev=make("d", 1), test=opened)
    assert errors(source) == [
        f"{tmp_path}: test holds open questions (without choices), but train and dev questions "
        "with choices; all splits must hold the same kind"
    ]


def test_train_is_required(tmp_path: Path) -> None:
    source = folder(tmp_path, test=make("x", 2), learning=make("t", 2))
    message = "train.jsonl is missing; the folder has learning.jsonl, test.jsonl"
    assert errors(source) == [f"{tmp_path}: {message}"]
    (tmp_path / "empty").mkdir()
    empty = tmp_path / "empty"
    assert errors(str(empty)) == [f"{empty}: train.jsonl is missing; the folder has no files"]
    (empty / "data").mkdir()
    assert errors(str(empty)) == [f"{empty}: train.jsonl is missing; the folder has data"]


def test_a_question_in_two_splits_is_a_note(tmp_path: Path) -> None:
    train = make("t", 3)
    again = Example("x", train[0].question, train[0].choices, 0)
    source = folder(tmp_path, train=train, dev=make("d", 1), test=[again, *make("e", 1)])
    loaded = load_source(Data(source=source))
    assert loaded.notes == ["1 of the 2 questions of test are also in train"]


def test_an_unknown_source_names_the_nearest_known_one(tmp_path: Path) -> None:
    (error,) = errors("stratgyqa")
    assert error.startswith(
        "data.source: 'stratgyqa' is neither a known source nor a file or folder; "
        "did you mean 'strategyqa'? (a folder with train.jsonl"
    )
    (error,) = errors(str(tmp_path / "nowhere"))
    assert f"known: {', '.join(sorted(KNOWN_SOURCES))} (a folder" in error
    assert {"creatures", "cos_e", "qasc"} < set(KNOWN_SOURCES)


def test_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder(tmp_path / "mine", train=make("t", 10))
    assert len(load_source(Data(source="~/mine")).train) == 7


def test_the_embedded_world_is_a_source() -> None:
    data = Data(source="creatures", world=World(train=60, dev=10, test=20))
    loaded = load_source(data)
    assert [len(part) for part in (loaded.train, loaded.dev, loaded.test)] == [60, 10, 20]
    assert load_source(data) == loaded
