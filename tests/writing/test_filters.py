"""Which texts become rationales, and the reason for each that does not."""

import random
from collections.abc import Sequence

import pytest
from facts import example

from knife.config.write import Write
from knife.data.example import Example
from knife.writing.answer import Answer
from knife.writing.best import gains
from knife.writing.filters import judge
from knife.writing.request import Request


def judged(
    texts: Sequence[Sequence[str]],
    finish: str = "stop",
    own: Sequence[str] = (),
    examples: Sequence[Example] = (),
    **settings: object,
) -> list[list[str]]:
    """Return the reasons against the texts of some questions; "" for those that are used."""
    write = Write.model_validate({"model": "m", "url": "http://h/v1"} | settings)
    questions = examples or [example(id=str(number)) for number in range(len(texts))]
    requests, answers = [], {}

    def add(one: Example, kind: str, sample: int, text: str) -> None:
        key = f"{one.id}-{kind}-{sample}"
        requests.append(Request(key, one, kind, sample))  # type: ignore[arg-type]
        answers[key] = Answer(key, text, finish, 9, 1, 1, counted=True, model="m", time=1.0)

    for number, one in enumerate(questions):
        if own:
            add(one, "answer", 0, own[number])
        for sample, text in enumerate(texts[number]):
            add(one, "rationale", sample, text)
    found = judge(write, requests, answers)
    return [[j.reason for j in found if j.request.example.id == one.id] for one in questions]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a dog barks . a cat meows .", ""),
        ("  ", "no text"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ("a dog", "too short"),
        ("dog " * 201, "too long"),
        ("The answer is no, since cats meow.", "names the answer"),
        ("No, cats meow all day.", "names the answer"),
        ("A cat meows, so no.", "names the answer"),
        ("Cats meow, which makes it choice (b).", "names the answer"),
        ("Cats meow, hence no.", "names the answer"),
        ("The correct choice would be no here.", "names the answer"),
        # Where all questions have the choices yes and no, these are words like others.
        ("there is no dog that meows .", ""),
        ("No cat barks, so no sound is the same.", ""),
    ],
)
def test_each_reason(text: str, reason: str) -> None:
    assert judged([[text]]) == [[reason]]


def test_choices_of_its_own_are_named_by_their_words() -> None:
    some = [example(choices=("a dog", "a cat")), example(id="2", choices=("a cow", "a hen"))]
    texts = [["A cat meows all day ."], ["It lives on a farm ."]]
    assert judged(texts, examples=some) == [["names the answer"], [""]]
    assert judged(texts, examples=some, drop={"names_answer": False}) == [[""], [""]]


def test_a_text_that_is_cut_off_is_none() -> None:
    assert judged([["a dog barks . a cat"]], finish="length") == [["cut off"]]


def test_a_text_of_many_questions_explains_none() -> None:
    same = [["This is common knowledge."]] * 5
    assert judged(same) == [["repeated"]] * 5
    assert judged(same, drop={"repeated": False}) == [[""]] * 5
    assert judged(same[:4]) == [[""]] * 4
    # Several samples of one question are one question.
    assert judged([["This is common knowledge."] * 6], samples=6)[0].count("repeated") == 0


def test_right_takes_the_first_text_whose_own_answer_is_right() -> None:
    texts = [
        ["dogs and cats bark .\nAnswer: yes", "cats meow all day .\nAnswer: no"],
        ["all animals bark .\nAnswer: yes", "all animals bark a lot .\nAnswer: (a)"],
    ]
    found = judged(texts, given="nothing", keep="right", samples=2)
    wrong = "the model is wrong"
    assert found == [[wrong, ""], [wrong, wrong]]


def test_right_asks_a_model_that_sees_the_answer_without_it() -> None:
    texts = [["cats meow all day ."], ["cats purr all day ."]]
    found = judged(texts, keep="right", own=["Answer: no", "Answer: yes"])
    assert found == [[""], ["the model is wrong"]]


def test_a_missing_answer_of_its_own_is_not_a_wrong_one() -> None:
    write = Write(model="m", url="http://h/v1", keep="right")
    asked = [Request("a", example(), "answer", 0), Request("r", example(), "rationale", 0)]
    text = Answer("r", "cats meow all day .", "stop", 9, 1, 1, counted=True, model="m", time=1.0)
    (found,) = judge(write, asked, {"r": text})
    assert found.reason == "the model's own answer is missing"


def test_all_keeps_one_text_of_each_question() -> None:
    assert judged([["cats meow a lot .", "cats purr a lot ."]], samples=2) == [
        ["", "another is used"]
    ]
    assert judged([["no", "cats purr a lot ."]], samples=2) == [["too short", ""]]


def test_best_takes_the_text_that_tells_most() -> None:
    draw = random.Random(0)
    some, texts = [], []
    for number in range(60):
        answer = number % 2
        some.append(example(id=str(number), question=f"is {number} fine ?", answer=answer))
        telling = "it glows bright red ." if answer else "it stays cold and blue ."
        vague = "nobody knows much about it ."
        texts.append(draw.sample([f"{telling} {number}", f"{vague} {number}"], 2))
    found = judged(texts, examples=some, samples=2, keep="best")
    for said, reasons in zip(texts, found, strict=True):
        assert "nobody" not in said[reasons.index("")]


@pytest.mark.parametrize("shared", [True, False])
def test_gains_are_high_where_a_text_tells_the_answer(shared: bool) -> None:
    some = []
    for number in range(40):
        names = ("red", "blue") if shared else (f"red {number}", f"blue {number}")
        answer = number % 2
        telling, vague = f"it is {names[answer]}", "it is something else"
        for text in (telling, vague):
            some.append(example(id=str(number), choices=names, answer=answer, rationale=text))
    found = gains(some)
    assert min(found[::2]) > max(found[1::2])


def test_too_few_questions_teach_nothing() -> None:
    assert gains([example(rationale="a dog barks .")] * 3) == [0.0] * 3
