"""Answers as they are kept: each is there once it came, whatever happens after."""

from dataclasses import replace
from pathlib import Path

import pytest
from facts import example

from knife.config.write import Write
from knife.core.errors import UserError
from knife.writing.answer import Answer
from knife.writing.kept import Keeper, Kept
from knife.writing.prompt import read_prompt
from knife.writing.request import Request, requests

ANSWER = Answer("k", "a dog\nbarks \u2028 .", "stop", 9, 10, 5, counted=True, model="m", time=1.0)
REQUEST = Request("k", example(), "rationale", 0)


def test_an_answer_is_there_at_once(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.keep([ANSWER])
    # Another process reads while this one still writes.
    kept = Kept(tmp_path)
    assert kept.answers == {"k": ANSWER}
    assert (kept.read, kept.written) == (10, 5)
    keeper.close()


def test_an_unfinished_line_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(ANSWER.line() + "\n" + replace(ANSWER, key="l").line()[:30])
    kept = Kept(tmp_path)
    assert list(kept.answers) == ["k"]
    assert kept.missing([REQUEST, replace(REQUEST, key="l")], 9) == [replace(REQUEST, key="l")]


def test_what_has_come_since_is_read_once(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.keep([ANSWER])
    kept = Kept(tmp_path)
    keeper.keep([replace(ANSWER, key="l")])
    with (tmp_path / "other.jsonl").open("w") as other:
        other.write(replace(ANSWER, key="m").line() + "\n" + ANSWER.line()[:9])
    kept.read_more()
    assert list(kept.answers) == ["k", "l", "m"]
    assert kept.read == 30
    kept.read_more()
    assert kept.read == 30


def test_a_damaged_line_is_told_by_its_place(tmp_path: Path) -> None:
    for damaged in ("{}", "[]", "null", ANSWER.line().replace(": 10,", ': "10",')):
        (tmp_path / "a.jsonl").write_text(f"{ANSWER.line()}\n{damaged}\n{ANSWER.line()}\n")
        with pytest.raises(UserError, match=r"a\.jsonl:2: is damaged"):
            Kept(tmp_path)


def test_an_answer_that_was_cut_off_is_asked_again_only_with_more_room(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.keep([replace(ANSWER, finish="length", limit=16)])
    kept = Kept(tmp_path)
    assert kept.missing([REQUEST], 16) == []
    assert kept.missing([REQUEST], 32) == [REQUEST]
    keeper.keep([replace(ANSWER, limit=32)])
    keeper.close()
    kept = Kept(tmp_path)
    assert kept.answers["k"].finish == "stop"
    # Both were paid.
    assert kept.read == 20


def test_a_file_without_an_answer_is_not_made(tmp_path: Path) -> None:
    Keeper(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def keys(model: str = "m", given: str = "answer", **settings: object) -> list[str]:
    write = Write.model_validate({"model": "m", "url": "http://h/v1", "given": given} | settings)
    prompt = read_prompt("builtin", write.given, [], example())
    return [request.key for request in requests(write, model, prompt, [example()])]


def test_a_request_is_known_by_prompt_model_and_sampling() -> None:
    (key,) = keys()
    assert keys() == [key]
    for changed in ({"temperature": 0.1}, {"extra": {"top_p": 0.5}}, {"given": "nothing"}):
        assert key not in keys(**changed)
    assert key not in keys("another")


def test_neither_filters_nor_the_address_ask_anything_again() -> None:
    (key,) = keys()
    for changed in (
        {"url": "http://other/v1"},
        {"drop": {"words": [1, 2]}},
        {"max_tokens": 999},
        {"in_flight": 1},
        {"workers": 2},
        {"extra": {"max_completion_tokens": 99}},
    ):
        assert keys(**changed) == [key]
    assert keys(samples=3)[0] == key
    # The model's own answer is asked for besides.
    assert keys(keep="right")[1:] == [key]
    assert len(keys(keep="right", given="nothing")) == 1


def test_equal_questions_are_asked_once(tmp_path: Path) -> None:
    write = Write(model="m", url="http://h/v1")
    prompt = read_prompt("builtin", "answer", [], example())
    some = [example(), example(id="2"), example(id="3", question="another ?")]
    asked = list(requests(write, "m", prompt, some))
    assert [request.example.id for request in Kept(tmp_path).missing(asked, 9)] == ["1", "3"]
