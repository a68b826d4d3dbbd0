"""What of a model's text is a rationale, what its own answer, and what a refusal."""

from dataclasses import replace

import pytest
from facts import example

from knife.writing.answer import Answer, is_right, rationale_of

ANSWER = Answer("k", "a dog barks .", "stop", 9, 1, 1, counted=True, model="m", time=1.0)
ANIMALS = example(choices=("a dog", "a cat", "none of them"), answer=1)


@pytest.mark.parametrize(
    ("text", "rationale"),
    [
        ("Dogs bark.\nCats meow.\nAnswer: no", "Dogs bark. Cats meow."),
        ("Dogs bark.\n\n**Answer:** no\n", "Dogs bark."),
        ("Dogs bark.", "Dogs bark."),
        ("Dogs bark.\nThe answer is no.", "Dogs bark."),
        ("Answer: no", ""),
        ("Answer: no\nExplanation: Dogs bark.", "Dogs bark."),
        ("**Reasoning:** Dogs bark.\n\nThe correct answer is no.", "Dogs bark."),
        # The last of several.
        ("The answer is hard.\nDogs bark.\nAnswer: no", "The answer is hard. Dogs bark."),
    ],
)
def test_the_rationale_is_what_stands_before_the_answer(text: str, rationale: str) -> None:
    assert rationale_of(text) == rationale


@pytest.mark.parametrize(
    "text",
    [
        "It meows.\nAnswer: a cat",
        "It meows.\nAnswer: A CAT.",
        "It meows.\n**Answer:** (B)",
        "It meows.\nAnswer: B) a cat",
        "It meows.\nAnswer: b",
        "It meows.\nThe correct answer is (B) a cat.",
        "It meows.\nSo, the final answer is: **a cat**",
        "It meows.\nAnswer: $\\boxed{\\text{B}}$",
        "Answer: a cat\nIt meows, and no dog does.",
        "It meows.\n### Answer\n\na cat",
        "It meows, so it is $\\boxed{a cat}$.",
        "It meows.\nAnswer: Option B",
        "It meows.\nAnswer: B) a cat, because it meows",
        "It meows.\nAnswer: a cat\nAnswer choices such as a dog are wrong.",
        "It meows.\nAnswer:\na cat",
        "It meows.\nFinal answer: a cat, of course",
        "Answer: a dog\nNo, it meows.\nAnswer: a cat",
    ],
)
def test_the_right_answer_is_found(text: str) -> None:
    assert is_right(text, ANIMALS)


@pytest.mark.parametrize(
    "text",
    [
        "It meows.",
        "It meows.\nAnswer: a dog",
        "It meows.\nAnswer: A",
        "It meows.\nAnswer: B) a dog",
        "It meows.\nAnswer: a cat or a dog",
        "It meows.\nAnswer:",
        "It meows.\nAnswer: unknown",
        # A letter beyond the choices, and a word that begins like one.
        "It meows.\nAnswer: Z",
        "It meows.\nAnswer: a catfish",
    ],
)
def test_no_other_answer_is_right(text: str) -> None:
    assert not is_right(text, ANIMALS)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (("5", "-5"), "-5"),
        (("C++", "C", "C#"), "C#"),
        (("< 5", "> 5"), "> 5"),
        (("1.2", "1/2"), "1/2"),
        (("10", "10%"), "10%."),
        (("A", "B", "C"), "B"),
        # Composed and decomposed.
        (("Kr\u00f6te", "Frosch"), "Kro\u0308te"),
    ],
)
def test_choices_may_differ_in_signs_alone(choices: tuple[str, ...], said: str) -> None:
    for index, choice in enumerate(choices):
        one = example(choices=choices, answer=index)
        right = choice == said.rstrip(".") or (index == 0 and said.startswith("Kro"))
        assert is_right(f"Some reason.\nAnswer: {said}", one) == right


def test_an_open_answer_is_right_if_it_has_the_same_words() -> None:
    one = example(choices=("the Eiffel Tower",), answer=0)
    assert is_right("It is in Paris.\nAnswer: Eiffel tower.", one)
    assert not is_right("It is in Paris.\nAnswer: the Louvre", one)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot assist with this request.",
        "Unfortunately, I am unable to provide an answer.",
        "As an AI language model, I have no opinion.",
        "Sorry, no.",
        "I'm unable to help with that.",
        "I must decline to answer.",
        "I cannot in good conscience explain this.",
        "Unfortunately, as an AI, I have no access to that.",
    ],
)
def test_refusals(text: str) -> None:
    assert replace(ANSWER, text=text).refused


@pytest.mark.parametrize(
    "text",
    [
        "I can see that a dog barks .",
        "A person who is sorry apologises.",
        "Sorrow is an emotion.",
        "Sorry is a word of apology.",
        "As an artificial satellite, the ISS orbits the earth.",
        "As a language, French is spoken in Canada.",
        "As an AI accelerator, the TPU multiplies matrices.",
        "I cannot be in two places, so the meeting is missed.",
    ],
)
def test_no_refusals(text: str) -> None:
    assert not replace(ANSWER, text=text).refused


def test_what_a_server_filters_is_a_refusal() -> None:
    assert replace(ANSWER, finish="content_filter").refused


def test_thoughts_are_no_part_of_the_text() -> None:
    said = "<think>Answer: yes? No.</think>\nDogs bark.\nAnswer: no"
    assert replace(ANSWER, text=said).bare == "Dogs bark.\nAnswer: no"
    assert replace(ANSWER, text="Hm.\nAnswer: yes?</think>Dogs bark.").bare == "Dogs bark."
    # Cut off in its thoughts, a model has said nothing.
    assert replace(ANSWER, text="<think>Dogs").bare == ""
