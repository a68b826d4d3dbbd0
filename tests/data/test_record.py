"""Records as users have them: misnamed fields, other layouts, equal choices."""

from typing import Any

import pytest

from knife.data.example import UNANSWERED, Example
from knife.data.record import read_example, read_question

GOOD = {"id": "1", "question": "q ?", "choices": ["a", "b"], "answer": "b", "rationale": "r"}


def renamed(**names: str) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in GOOD.items()}


def messages(record: object) -> list[str]:
    example, errors = read_example(record)
    assert example is None
    return [error.message for error in errors]


@pytest.mark.parametrize(
    ("known", "name"),
    [
        ("choices", "options"),
        ("choices", "Choices"),
        ("choices", " choices"),
        ("choices", "choises"),
        ("choices", "answer_choices"),
        ("choices", "choices_list"),
        ("choices", "opts"),
        ("choices", "possible_answers"),
        ("rationale", "Rationale"),
        ("rationale", "explanation"),
        ("rationale", "human_explanation"),
        ("rationale", "ratoinale"),
        ("answer", "label"),
        ("answer", "Answer"),
        ("answer", "answerKey"),
        ("answer", "gold_answer"),
        ("question", "Question"),
        ("question", "question_stem"),
        ("id", "ID"),
        ("id", "qid"),
    ],
)
def test_a_misnamed_field_is_said_once_with_the_name_that_is_meant(known: str, name: str) -> None:
    record = renamed(**{known: name})
    (said,) = messages(record)
    assert said.startswith(f'{known}: is missing, but there is "{name}", which is not read')
    # Data frames give null to rows that lack a column.
    assert messages({**record, known: None}) == [said]
    assert read_example({**GOOD, name: record[name]})[0] is not None
    assert read_example({**GOOD, name: None})[0] is not None


def test_choices_in_fields_of_their_own_are_no_open_question() -> None:
    opened = {key: value for key, value in GOOD.items() if key != "choices"}
    for names in (
        ["option_a", "option_b"],
        ["choice1", "choice2"],
        ["A", "B", "C"],
        ["opa", "opb"],
    ):
        (said,) = messages({**opened, **dict.fromkeys(names, "x")})
        assert said.startswith(f'choices: is missing, but there are "{names[0]}", "{names[1]}"')
    assert read_example({**opened, "topic": "x", "source": "y", "a": "z"})[0] is not None


def test_fields_that_only_resemble_are_left_alone() -> None:
    bare = {key: value for key, value in GOOD.items() if key != "rationale"}
    for name in ("rationale_id", "topic", "rational_number", "source"):
        assert read_example({**bare, name: "x"})[0] is not None


@pytest.mark.parametrize(
    ("choices", "hint"),
    [
        ({"A": "x", "B": "y"}, "write the texts alone"),
        ({"text": ["x", "y"], "label": ["A", "B"]}, 'write the list in "text" alone'),
        ([{"label": "A", "text": "x"}, {"label": "B", "text": "y"}], "write the texts alone"),
        ([["x"], ["y"]], "write the texts alone"),
        ([1, 2], "write numbers in quotation marks"),
        ("['x', 'y']", 'write ["…", "…"]'),
        ("x|y", 'write ["…", "…"]'),
    ],
)
def test_choices_of_another_shape(choices: object, hint: str) -> None:
    (said,) = messages({**GOOD, "choices": choices})
    assert said.startswith("choices: must be a list of texts, but got ")
    assert hint in said


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"rationale": ["one", "two"]}, 'rationale: must be text, but got ["one", "two"]; join'),
        ({"question": {"stem": "q ?"}}, 'question: must be text, but got {"stem"'),
        ({"id": 1.0}, "id: must be text or an integer, but got 1.0"),
        ({"id": ["1"]}, 'id: must be text or an integer, but got ["1"]'),
        ({"answer": ["b"]}, 'answer: must be one of the choices or its index, but got ["b"]'),
        ({"choices": ["a", "\u200b"]}, "choices: one is empty"),
        ({"question": "\u00a0\ufeff"}, "question: is empty"),
    ],
)
def test_other_shapes_are_one_message(changes: dict[str, Any], start: str) -> None:
    (said,) = messages({**GOOD, **changes})
    assert said.startswith(start)


def test_a_list_in_an_object_is_said_as_such() -> None:
    (said,) = messages({"train": [GOOD], "test": [GOOD]})
    assert said.startswith('is not an example, but has a list of 1 objects in "train"')


def test_equal_wrong_choices_become_one_and_the_index_moves() -> None:
    doubled = {**GOOD, "choices": ["a", "a\u00a0", "b", "c"]}
    expected = Example("1", "q ?", ("a", "b", "c"), 1, "r")
    assert read_example(doubled) == (expected, [])
    assert read_example({**doubled, "answer": 2}) == (expected, [])
    (said,) = messages({**doubled, "answer": "a"})
    assert said == 'choices: two are equal and are the answer: ["a", "a\u00a0", "b", "c"]'
    assert messages({**doubled, "answer": 1}) == [said]


def test_texts_stay_as_they_are() -> None:
    record = {**GOOD, "choices": ["a\u00a0", "e\u0301"], "answer": "\u00e9"}
    example, _ = read_example(record)
    assert example
    assert (example.choices, example.answer) == (("a\u00a0", "e\u0301"), 1)


def test_a_question_needs_no_answer_but_choices_that_can_be_told_apart() -> None:
    bare = {key: GOOD[key] for key in ("id", "question", "choices")}
    assert read_question(bare) == (Example("1", "q ?", ("a", "b"), UNANSWERED), [])
    assert read_question({**bare, "label": 1, "explanation": "x"})[0] is not None
    for answer in (None, "b"):
        example, (error,) = read_question({**bare, "choices": ["a", "a ", "b"], "answer": answer})
        assert example is None
        assert error.message == 'choices: two are equal: ["a", "a ", "b"]'
    _, (error,) = read_question({"id": "1", "question": "q ?", "options": ["a", "b"]})
    assert error.message.startswith('choices: is missing, but there is "options"')
