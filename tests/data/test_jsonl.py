"""JSON Lines: what is read, what is refused and how, and that writing is the inverse of reading."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knife.core.errors import UserError
from knife.data.example import Example
from knife.data.jsonl import read_examples, write_examples
from knife.data.line_errors import SHOWN_ERRORS
from knife.data.normal import normal

GOOD = {
    "id": "q1",
    "question": "Can a stone swim?",
    "choices": ["yes", "no"],
    "answer": "no",
    "rationale": "Stones sink.",
}
STONE = Example("q1", "Can a stone swim?", ("yes", "no"), 1, "Stones sink.")


def line(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


def without(field: str) -> str:
    return json.dumps({key: value for key, value in GOOD.items() if key != field})


def write(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "train.jsonl"
    path.write_bytes(b"\n".join(x.encode() if isinstance(x, str) else x for x in lines) + b"\n")
    return path


def errors(path: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_examples(path)
    return caught.value.errors


def test_reads_what_a_line_says(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        line(),
        line(id=7, answer=0, rationale=None),
        line(id="q3", rationale=" \t", choices=["a", "b", "c"], answer="c", source="ours"),
        without("rationale").replace("q1", "q4"),
    )
    assert read_examples(path) == [
        STONE,
        Example("7", "Can a stone swim?", ("yes", "no"), 0, None),
        Example("q3", "Can a stone swim?", ("a", "b", "c"), 2, None),
        Example("q4", "Can a stone swim?", ("yes", "no"), 1, None),
    ]


def test_mark_line_ends_and_blank_lines_are_fine(tmp_path: Path) -> None:
    second = line(id="q2", question="One\u2028two?")
    path = write(tmp_path, "\ufeff" + line() + "\r", "\r", "   ", second + "\r")
    assert [(e.id, e.question) for e in read_examples(path)] == [
        ("q1", "Can a stone swim?"),
        ("q2", "One\u2028two?"),
    ]


def test_without_choices_a_question_is_open(tmp_path: Path) -> None:
    opened = without("choices")
    path = write(tmp_path, opened, line(id="q2", choices=None, answer="No, it sinks."))
    found = read_examples(path)
    assert [e.choices for e in found] == [("no",), ("No, it sinks.",)]
    assert all(e.open and e.answer == 0 for e in found)
    write_examples(tmp_path / "again.jsonl", found)
    assert read_examples(tmp_path / "again.jsonl") == found
    bad = write(
        tmp_path,
        opened,
        line(id="q2", choices=None, answer=0),
        line(id="q3", choices=None, answer=" "),
    )
    assert errors(bad) == [
        f"{bad}:2: answer: must be text, since there are no choices, but got 0",
        f"{bad}:3: answer: is empty",
    ]


def test_open_questions_and_others_are_not_mixed(tmp_path: Path) -> None:
    path = write(tmp_path, line(), line(id="q2"), without("choices").replace("q1", "q3"))
    (error,) = errors(path)
    assert error.startswith(f"{path}:3: choices: is missing, but line 1 has some; open questions")


def test_text_that_is_a_choice_is_that_choice_not_an_index(tmp_path: Path) -> None:
    path = write(tmp_path, line(choices=["1", "0"], answer="0"))
    assert read_examples(path)[0].answer == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"id": "q1", question: 1}', "broken JSON at column 14: "),
        ('{"id": "q1"', "broken JSON at column 12: "),
        ("[1, 2]", "must be a JSON object"),
        ('"text"', "must be a JSON object"),
        ("[" * 100_000, "broken JSON: "),
        (without("id"), "id: is missing"),
        (line(id=None), "id: must be text or an integer, but got null"),
        (line(id=True), "id: must be text or an integer, but got true"),
        (line(id=1.5), "id: must be text or an integer, but got 1.5"),
        (line(id=" "), "id: is empty"),
        (without("question"), "question: is missing"),
        (line(question=["x"]), 'question: must be text, but got ["x"]'),
        (line(question=" \n"), "question: is empty"),
        (line(question="a\ud800b"), "question: holds half of a surrogate pair"),
        (without("choices"), "choices: is missing"),
        (line(choices="yes"), 'choices: must be a list of texts, but got "yes"'),
        (line(choices=["yes", 1]), 'choices: must be a list of texts, but got ["yes", 1]'),
        (line(choices=["no"]), 'choices: must be two or more, but got ["no"]'),
        (line(choices=["no", ""]), 'choices: one is empty: ["no", ""]'),
        (line(choices=["no", "no "]), 'choices: two are equal and are the answer: ["no", "no "]'),
        (line(choices=["no", "\udfff"]), "choices: one holds half of a surrogate pair"),
        (without("answer"), "answer: is missing"),
        (line(answer="maybe"), 'answer: "maybe" is not among the choices ["yes", "no"]'),
        (line(answer="1"), 'answer: "1" is not among the choices ["yes", "no"]'),
        (line(answer=2), 'answer: index must be from 0 to 1, but got 2: ["yes", "no"]'),
        (line(answer=-1), 'answer: index must be from 0 to 1, but got -1: ["yes", "no"]'),
        (line(answer=True), "answer: must be one of the choices or its index, but got true"),
        (line(answer=1.0), "answer: must be one of the choices or its index, but got 1.0"),
        (line(answer=None), "answer: must be one of the choices or its index, but got null"),
        (line(rationale=["x"]), 'rationale: must be text, but got ["x"]'),
        (b'{"id": "\xff"}', "not UTF-8: byte 0xff at byte 9 of the line"),
    ],
)
def test_a_error_is_one_message_with_file_and_line(
    tmp_path: Path, bad: str | bytes, message: str
) -> None:
    path = write(tmp_path, line(id="good"), "", bad)
    found = errors(path)
    assert len(found) == 1
    assert found[0].startswith(f"{path}:3: {message}")


def test_all_errors_of_a_file_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        line(),
        line(answer="maybe", question=""),
        b"\xc3(",
        line(),
        line(choices=["a"], answer=True),
        "{",
    )
    assert [error.removeprefix(f"{path}:").split(" (")[0] for error in errors(path)] == [
        "2: question: is empty",
        '2: answer: "maybe" is not among the choices ["yes", "no"]',
        '2: id: "q1" is in line 1 already',
        "3: not UTF-8: byte 0xc3 at byte 1 of the line; save the file as UTF-8",
        '4: id: "q1" is in line 1 already',
        '5: choices: must be two or more, but got ["a"]',
        "5: answer: must be one of the choices or its index, but got true; write the text of the "
        "choice",
        '5: id: "q1" is in line 1 already',
        "6: broken JSON at column 2: Expecting property name enclosed in double quotes",
    ]


def test_an_id_is_one_whether_text_or_integer(tmp_path: Path) -> None:
    path = write(tmp_path, line(id=12), line(id="12"))
    assert errors(path) == [f'{path}:2: id: "12" is in line 1 already']


def test_many_errors_are_counted_not_poured_out(tmp_path: Path) -> None:
    wrong = [line(id=n, answer="maybe") for n in range(SHOWN_ERRORS + 3)]
    found = errors(write(tmp_path, *wrong))
    assert len(found) == SHOWN_ERRORS + 1
    assert found[-1] == "… and 3 more"
    assert len(errors(write(tmp_path, *wrong[3:]))) == SHOWN_ERRORS


def test_what_is_the_same_in_many_lines_is_said_once(tmp_path: Path) -> None:
    found = errors(write(tmp_path, line(), *["nope"] * 9, *[line(id=n, answer=2) for n in (1, 2)]))
    assert found == [
        f"{tmp_path}/train.jsonl:2: broken JSON at column 1: Expecting value "
        "(the same in lines 3, 4, 5, 6, 7 and 3 more)",
        f"{tmp_path}/train.jsonl:11: answer: index must be from 0 to 1, but got 2: "
        '["yes", "no"]; indices count from 0 (the same in line 12)',
    ]


def test_long_values_are_cut_in_messages(tmp_path: Path) -> None:
    found = errors(write(tmp_path, line(choices=["x" * 5000])))
    assert len(found[0]) < 400


@pytest.mark.parametrize("content", [b"", b"\n \r\n\n", b"\xef\xbb\xbf"])
def test_a_file_without_examples_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    assert errors(path)[0].startswith(f"{path}: has no examples; expected one JSON object a line")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert errors(tmp_path / "nowhere.jsonl") == [f"{tmp_path / 'nowhere.jsonl'}: no such file"]
    assert errors(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, line())
    path.chmod(0)
    assert errors(path) == [f"{path}: cannot be read: Permission denied"]


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(normal)


@settings(deadline=None)
@given(data=st.data())
def test_writing_is_the_inverse_of_reading(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    examples = []
    for identity in data.draw(st.lists(texts, min_size=1, max_size=4, unique=True)):
        choices = data.draw(st.lists(texts, min_size=2, max_size=4, unique_by=normal))
        answer = data.draw(st.integers(0, len(choices) - 1))
        rationale = data.draw(st.none() | texts)
        examples.append(Example(identity, data.draw(texts), tuple(choices), answer, rationale))
    path = tmp_path_factory.getbasetemp() / "inverse.jsonl"
    write_examples(path, examples)
    assert read_examples(path) == examples


def test_written_lines_are_the_format_that_users_write(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write_examples(path, [STONE])
    assert json.loads(path.read_text(encoding="utf-8")) == GOOD
