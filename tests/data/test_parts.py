"""A file in parts has the same questions and errors as when it is read at once."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knife.core.errors import UserError
from knife.data.example import UNANSWERED, Example
from knife.inference.parts import read_part, refuse_errors, split


def line(name: str, **changes: Any) -> str:
    return json.dumps({"id": name, "question": "q ?", "choices": ["x", "y"], **changes})


def errors(path: Path, rows: int) -> list[str]:
    with pytest.raises(UserError) as error:
        refuse_errors(path, split(path, rows), lambda _: [], lambda _: None)
    return [message.removeprefix(f"{path}:") for message in error.value.errors]


@given(
    blanks=st.lists(st.integers(0, 3), min_size=1, max_size=20),
    rows=st.integers(1, 7),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
    closed=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_the_parts_are_the_whole(
    blanks: list[int],
    rows: int,
    end: str,
    mark: bool,
    closed: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("parts") / "questions.jsonl"
    lines = [end * count + line(f"ü{n}") for n, count in enumerate(blanks)]
    text = end.join(lines) + end * closed
    path.write_bytes(b"\xef\xbb\xbf" * mark + text.encode())
    parts = split(path, rows)
    refuse_errors(path, parts, lambda _: [], lambda _: None)
    read = [read_part(path, part) for part in parts]
    assert [e.id for examples in read for e in examples] == [f"ü{n}" for n in range(len(blanks))]
    assert all(len(examples) == part.rows for examples, part in zip(read, parts, strict=True))
    assert all(part.rows == rows for part in parts[:-1])
    assert [part.first for part in parts] == list(range(0, len(blanks), rows))


def test_an_answer_may_be_missing_but_not_wrong(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{line('a', answer='y')}\n{line('b')}\n{line('c', answer=None)}\n")
    (part,) = split(path, 10)
    assert [e.answer for e in read_part(path, part)] == [1, UNANSWERED, UNANSWERED]
    opened = [{"id": "a", "question": "q ?", "answer": "it is"}, {"id": "b", "question": "q ?"}]
    path.write_text("\n".join(map(json.dumps, opened)))
    (part,) = split(path, 10)
    read = read_part(path, part)
    assert [(e.open, e.choices, e.answer) for e in read] == [
        (True, ("it is",), 0),
        (True, (), UNANSWERED),
    ]
    path.write_text(line("a", answer="z"))
    assert errors(path, 10) == ['1: answer: "z" is not among the choices ["x", "y"]']


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_errors_have_their_lines_in_every_part(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f"\n{line('a')}\nnope\n\n{line('b')}\n{line('a')}\n{line('b', choices=[])}\n")
    assert errors(path, rows) == [
        "3: broken JSON at column 1: Expecting value",
        '6: id: "a" is in line 2 already',
        "7: choices: must be two or more, but got []",
        '7: id: "b" is in line 5 already',
    ]


def test_only_so_many_errors_are_said(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    wrong = [line(f"{n}", answer="z") for n in range(30)]
    path.write_text("\n".join(wrong) + "\nnope" * 9 + f"\n{line('a')}" * 3)
    said = errors(path, 4)
    assert len(said) == 21
    assert said[19].startswith('20: answer: "z" is not among')
    assert said[20] == "… and 13 more"
    path.write_text(f"{line('a')}\n" + "nope\n" * 9)
    assert errors(path, 4) == [
        "2: broken JSON at column 1: Expecting value (the same in lines 3, 4, 5, 6, 7 and 3 more)"
    ]


def test_what_cannot_be_split(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    with pytest.raises(UserError, match="no such file"):
        split(path, 10)
    path.write_text(" \n\n")
    with pytest.raises(UserError, match="has no examples"):
        split(path, 10)
    path.write_text(line("a"), encoding="utf-16")
    with pytest.raises(UserError, match="UTF-16"):
        split(path, 10)
    path.write_bytes(gzip.compress(line("a").encode()))
    with pytest.raises(UserError, match="is compressed with gzip"):
        split(path, 10)
    path.write_text(f"{line('a')}\r{line('b')}\r", newline="")
    with pytest.raises(UserError, match="old Mac line endings"):
        split(path, 10)
    path.write_text(f"[{line('a')}]")
    with pytest.raises(UserError, match="or an array"):
        split(path, 10)
    path.write_text(json.dumps(json.loads(line("a")), indent=1))
    with pytest.raises(UserError, match="over several lines"):
        split(path, 10)
    path.write_text("id,question\na,q ?\n")
    with pytest.raises(UserError, match="is CSV"):
        split(path, 10)
    with pytest.raises(UserError, match="not a folder or pipe"):
        split(tmp_path, 10)


def test_a_part_of_a_file_that_has_changed_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{line('a')}\n{line('b')}\n")
    first, second = split(path, 1)
    path.write_text(f"{line('a')}\n{line('c')}\n")
    assert read_part(path, first) == [Example("a", "q ?", ("x", "y"), UNANSWERED)]
    with pytest.raises(UserError, match="has changed since it was checked"):
        read_part(path, second)
