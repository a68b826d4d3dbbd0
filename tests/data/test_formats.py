"""Formats: the same examples in every supported format; others are refused by name."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from knife.core.errors import UserError
from knife.data.jsonl import read_examples, read_file

RECORDS = [
    {"id": f"{n}", "question": f"grün {n} ?", "choices": ["a", "b"], "answer": n % 2}
    for n in range(12)
]
LINES = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS)
PRETTY = json.dumps(RECORDS, indent=2, ensure_ascii=False)


def written(folder: Path, data: str | bytes, name: str = "train.jsonl") -> Path:
    path = folder / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def error(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_examples(path)
    (said,) = caught.value.errors
    assert said.startswith(str(path))
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    "data",
    [
        LINES,
        f"\ufeff{LINES}",
        LINES.replace("\n", "\r\n"),
        LINES.replace("\n", "\r"),
        LINES.replace("\n", "\n\n \n"),
        LINES.rstrip(),
        LINES.encode("utf-16"),
        LINES.encode("utf-16-le"),
        LINES.encode("utf-16-be"),
        LINES.encode("utf-32"),
        gzip.compress(LINES.encode(), mtime=0),
        gzip.compress(PRETTY.encode("utf-16"), mtime=0),
        json.dumps(RECORDS),
        PRETTY,
        PRETTY.replace("\n", "\r\n"),
        f"[\n{LINES.strip().replace(chr(10), ',' + chr(10))}\n]\n",
        "\n".join(json.dumps(record, indent=2) for record in RECORDS),
        json.dumps({"data": RECORDS}),
        json.dumps({"version": "1.0", "examples": RECORDS, "labels": []}, indent=1),
    ],
)
def test_one_set_of_examples_in_every_way(tmp_path: Path, data: str | bytes) -> None:
    plain = read_examples(written(tmp_path, LINES, "plain.jsonl"))
    assert len(plain) == len(RECORDS)
    assert read_examples(written(tmp_path, data)) == plain


def test_one_example_in_every_way(tmp_path: Path) -> None:
    plain = read_examples(written(tmp_path, json.dumps(RECORDS[0])))
    for data in (json.dumps(RECORDS[0], indent=1), json.dumps({"data": RECORDS[:1]})):
        assert read_examples(written(tmp_path, data)) == plain


def test_errors_of_a_document_name_the_example(tmp_path: Path) -> None:
    wrong: list[Any] = [*RECORDS, {**RECORDS[0], "answer": "c"}]
    path = written(tmp_path, json.dumps(wrong, indent=1))
    with pytest.raises(UserError) as caught:
        read_examples(path)
    assert caught.value.errors == [
        f'{path}: example 13: answer: "c" is not among the choices ["a", "b"]',
        f'{path}: example 13: id: "0" is in example 1 already',
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (PRETTY[:-20], ":108: broken JSON at column "),
        (PRETTY.replace("1\n  }", "1,\n  }", 1), "broken JSON at column "),
        (PRETTY.replace("  }\n]", "  },\n]"), "broken JSON at column "),
        (gzip.compress(LINES.encode(), mtime=0)[:-20], ": is compressed with gzip, but corrupt: "),
        (LINES.encode("utf-16")[:-1], ": is UTF-16, but corrupt: "),
        (LINES.encode("latin-1"), ":1: not UTF-8: byte 0xfc at byte "),
        (LINES.replace("}\n", "},\n"), ":1: broken JSON at column "),
        (LINES.replace('"a", "b"', "'a', 'b'"), ":1: broken JSON at column "),
        (json.dumps({"train": RECORDS, "test": RECORDS}), "has a list of 12 objects"),
        (json.dumps([[1, 2], [3, 4]]), ": example 1: must be a JSON object"),
    ],
)
def test_what_is_broken_is_one_line(tmp_path: Path, data: str | bytes, said: str) -> None:
    assert said in error(written(tmp_path, data))


def parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(RECORDS), path)


def feather(path: Path) -> None:
    pyarrow.feather.write_feather(pyarrow.Table.from_pylist(RECORDS), path)


@pytest.mark.parametrize(("write", "name"), [(parquet, "Parquet"), (feather, "an Arrow file")])
def test_tables_are_named(tmp_path: Path, write: Any, name: str) -> None:
    path = tmp_path / "train.jsonl"
    write(path)
    said = error(path)
    assert f"is {name}, but must be JSON Lines, one object a line: {{" in said
    assert f"give it a name that ends in .{'arrow' if write is feather else 'parquet'}" in said


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("id,question,choices,answer\n1,q ?,a|b,a\n", 'CSV (it begins with "id,question,choices'),
        ("id\tquestion\n1\tq ?\n", "TSV (it begins with"),
        ("id;question\n1;q ?\n", "CSV"),
        (gzip.compress(b"id,question\n1,q ?\n", mtime=0), "CSV"),
        ("id,question\n1,q ?\n".encode("utf-16"), "CSV"),
        ("question one\nquestion two\n", "plain text"),
        (b"PK\x03\x04" + bytes(40), "a zip archive or an Excel workbook"),
        (b"BZh91AY" + bytes(40), "compressed with bzip2"),
        (b"\x28\xb5\x2f\xfd" + bytes(40), "compressed with zstd"),
        (b"SQLite format 3\0" + bytes(40), "a SQLite database"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        ("<!DOCTYPE html>\n<html></html>\n", "HTML or XML"),
        (b"abc\0def" * 9, "a binary file"),
    ],
)
def test_other_formats_are_named_in_one_line(tmp_path: Path, data: str | bytes, name: str) -> None:
    assert f": is {name}" in error(written(tmp_path, data))


@pytest.mark.parametrize("name", ["answer", "id"])
def test_a_field_that_is_there_twice_is_refused(tmp_path: Path, name: str) -> None:
    twice = json.dumps(RECORDS[0])[:-1] + f', "{name}": 0}}'
    path = written(tmp_path, f"{twice}\n{twice}\n")
    assert error(path) == (
        f'{path}:1: the field "{name}" is given twice; remove one (the same in line 2)'
    )
    assert f'the field "{name}" is given twice' in error(written(tmp_path, f"[\n{twice}\n]"))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_no_number_is_no_json(tmp_path: Path, value: str) -> None:
    line = json.dumps(RECORDS[0])[:-1] + f', "rationale": {value}}}'
    path = written(tmp_path, line)
    assert error(path).startswith(f"{path}:1: broken JSON: {value} is not a JSON value")
    assert f"{value} is not a JSON value" in error(written(tmp_path, f"[\n{line}\n]"))


def test_fields_that_are_not_read_are_said_once_a_file(tmp_path: Path) -> None:
    records: list[Any] = [{**record, "topic": "x"} for record in RECORDS]
    records[0] = {**records[0], "source": "y", "Answer": "a"}
    path = written(tmp_path, "\n".join(map(json.dumps, records)))
    assert read_file(path).notes == [
        f"{path}: fields that are not read, and in how many examples: topic (12), source (1), "
        "Answer [like answer] (1)"
    ]
    assert read_file(written(tmp_path, LINES)).notes == []


def test_equal_wrong_choices_are_counted(tmp_path: Path) -> None:
    records: list[Any] = [{**r, "choices": ["a", "b", "c", "c "]} for r in RECORDS[:3]]
    path = written(tmp_path, "\n".join(map(json.dumps, [*records, *RECORDS[3:]])))
    read = read_file(path)
    assert read.notes == [f"{path}: equal wrong choices were merged in 3 examples"]
    assert [len(example.choices) for example in read.examples] == [3] * 3 + [2] * 9


@pytest.mark.parametrize(("count", "noted"), [(9, False), (20, True)])
def test_indices_that_seem_to_count_from_one_are_noted(
    tmp_path: Path, count: int, noted: bool
) -> None:
    records = [{**RECORDS[0], "id": n, "answer": 1} for n in range(count)]
    path = written(tmp_path, "\n".join(map(json.dumps, records)))
    found = read_file(path).notes
    assert bool(found) == noted
    if noted:
        assert f"none of the {count} answers that are an index is 0" in found[0]
    with path.open("a") as file:
        file.write("\n" + json.dumps({**RECORDS[0], "id": "zero"}))
    assert read_file(path).notes == []
