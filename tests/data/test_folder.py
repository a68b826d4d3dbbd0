"""Files of a folder: for every usual name, a file is read, refused or noted."""

import gzip
import json
from pathlib import Path

import pytest

from knife.config.run import Data
from knife.core.errors import UserError
from knife.data.example import Splits
from knife.data.source import load_source


def lines(prefix: str, count: int) -> str:
    return "".join(
        json.dumps(
            {
                "id": f"{prefix}{n}",
                "question": f"{prefix} {n} ?",
                "choices": ["a", "b"],
                "answer": 0,
            }
        )
        + "\n"
        for n in range(count)
    )


def fill(folder: Path, **files: str | bytes) -> None:
    """Write files by name, with `_` for each dot."""
    for name, content in files.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def load(folder: Path) -> Splits:
    return load_source(Data(source=str(folder)))


def errors(folder: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        load(folder)
    return caught.value.errors


@pytest.mark.parametrize("train", ["train.jsonl", "TRAIN.JSONL", "train.json", "Train.ndjson"])
@pytest.mark.parametrize(
    "dev", ["dev.JSONL", "val.jsonl", "valid.json", "Validation.jsonl", "eval.json"]
)
@pytest.mark.parametrize("test", ["test.jsonl.gz", "test-00000-of-00001.jsonl", "TEST.json"])
def test_names_of_splits(tmp_path: Path, train: str, dev: str, test: str) -> None:
    (tmp_path / train).write_text(lines("t", 5))
    (tmp_path / dev).write_text(lines("d", 2))
    data = lines("x", 3).encode()
    (tmp_path / test).write_bytes(gzip.compress(data) if test.endswith("gz") else data)
    loaded = load(tmp_path)
    assert [len(loaded.train), len(loaded.dev), len(loaded.test)] == [5, 2, 3]
    assert loaded.notes == []


def test_shards_are_joined_in_their_order(tmp_path: Path) -> None:
    fill(tmp_path, train_jsonl=lines("t", 5), dev_jsonl=lines("d", 1))
    for number in (2, 10, 0, *range(3, 10), 1):
        name = f"test-{number}-of-11-0123456789abcdef.jsonl"
        (tmp_path / name).write_text(lines(f"{number}x", 1))
    assert [e.id for e in load(tmp_path).test] == [f"{number}x0" for number in range(11)]


def test_shards_that_are_not_all_there_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, train_jsonl=lines("t", 5), dev_jsonl=lines("d", 1))
    for number in (0, 3):
        (tmp_path / f"test-0000{number}-of-00004.jsonl").write_text(lines(f"{number}x", 1))
    assert errors(tmp_path) == [
        f"{tmp_path}: test has 2 of 4 shards (test-00000-of-00004.jsonl, "
        "test-00003-of-00004.jsonl); missing, counted from 0: 1, 2"
    ]


def test_an_id_in_two_shards_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, dev_jsonl=lines("d", 1), test_jsonl=lines("x", 1))
    for number in (0, 1):
        (tmp_path / f"train-{number}-of-2.jsonl").write_text(lines("t", 2))
    assert errors(tmp_path) == [
        f"{tmp_path}: 2 ids are in train-0-of-2.jsonl and in train-1-of-2.jsonl: 't0', 't1'"
    ]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("val.jsonl", "dev.jsonl"),
        ("dev.jsonl", "dev.json"),
        ("dev.jsonl", "Dev.jsonl"),
        ("dev.jsonl", "dev-00000-of-00001.jsonl"),
        ("dev-0-of-1.jsonl", "dev-0-of-2.jsonl"),
        ("dev-0-of-2.jsonl", "dev-1-of-2.json"),
        ("dev-0-of-2.jsonl", "val-1-of-2.jsonl"),
    ],
)
def test_two_files_of_one_split_are_refused(tmp_path: Path, one: str, two: str) -> None:
    fill(tmp_path, train_jsonl=lines("t", 5), test_jsonl=lines("x", 1))
    (tmp_path / one).write_text(lines("d", 1))
    (tmp_path / two).write_text(lines("e", 1))
    (error,) = errors(tmp_path)
    assert error.startswith(f"{tmp_path}: dev is in ")
    assert one in error
    assert two in error


@pytest.mark.parametrize(
    "name",
    [
        "test.xlsx",
        "test.csv.gz",
        "test.jsonl.zst",
        "test.txt",
        "test",
        "test.jsonl.bak",
        "my_test.jsonl",
        "openbookqa-test.json",
        "test_v2.jsonl",
        "Test Set.jsonl",
        "testset.jsonl",
        "tests.jsonl",
        "testData.jsonl",
        "test-00000-of-00001.pkl",
    ],
)
def test_no_test_split_is_cut_out_of_train_where_a_file_seems_to_be_it(
    tmp_path: Path, name: str
) -> None:
    fill(tmp_path, train_jsonl=lines("t", 9), dev_jsonl=lines("d", 1))
    (tmp_path / name).write_text(lines("x", 1))
    (error,) = errors(tmp_path)
    assert error.startswith(f"{tmp_path}: {name} seems to be test, but is not read")
    # If the split itself exists, it is only noted.
    fill(tmp_path, test_jsonl=lines("y", 1))
    loaded = load(tmp_path)
    assert [e.id for e in loaded.test] == ["y0"]
    assert loaded.notes == [f"{tmp_path}: files that are not read: {name}"]


def test_a_folder_named_after_a_split_is_not_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, train_jsonl=lines("t", 9), dev_jsonl=lines("d", 1))
    (tmp_path / "test").mkdir()
    (error,) = errors(tmp_path)
    assert error.startswith(f"{tmp_path}: the folder test seems to hold test, but is not read")


def test_other_files_of_data_are_said_and_others_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, train_jsonl=lines("t", 9), dev_jsonl=lines("d", 1), test_jsonl=lines("x", 1))
    for name in (
        "README.md",
        "LICENSE",
        "notes.txt",
        "convert.py",
        ".train.jsonl.swp",
        "._dev.jsonl",
    ):
        (tmp_path / name).write_text("x")
    (tmp_path / "raw").mkdir()
    assert load(tmp_path).notes == []
    (tmp_path / "more.jsonl").write_text("x")
    (tmp_path / "train.xlsx").write_text("x")
    assert load(tmp_path).notes == [f"{tmp_path}: files that are not read: more.jsonl, train.xlsx"]


def test_train_in_another_format_is_named(tmp_path: Path) -> None:
    fill(tmp_path, train_xlsx="id,question\n", test_jsonl=lines("x", 1))
    assert errors(tmp_path) == [
        f"{tmp_path}: train.xlsx seems to be train, but is not read: make it train.jsonl, .csv, "
        "or .parquet, or remove it"
    ]
