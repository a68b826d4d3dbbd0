"""What a language model is asked: the package's prompts, those of files, and what is refused."""

from pathlib import Path

import pytest
from facts import example

from knife.core.errors import UserError
from knife.writing.prompt import read_prompt


def test_the_package_s_prompt_shows_the_answer_only_if_it_is_given() -> None:
    one = example(choices=("a bark", "a meow"), answer=1)
    with_answer = read_prompt("builtin", "answer", [], example()).messages(one, "rationale")
    assert [message["role"] for message in with_answer] == ["user"]
    assert "Right answer: a meow" in with_answer[0]["content"]
    without = read_prompt("builtin", "nothing", [], example()).messages(one, "rationale")
    assert "Right answer" not in without[0]["content"]
    assert "Choices: a bark; a meow" in without[0]["content"]
    # The model's own answer is asked for without the right one, whatever is given.
    own = read_prompt("builtin", "answer", [], example()).messages(one, "answer")
    assert "Right answer" not in own[0]["content"]


def test_an_open_question_has_no_choices() -> None:
    one = example(choices=("a wolf",), answer=0)
    (asked,) = read_prompt("builtin", "nothing", [], example()).messages(one, "rationale")
    assert "Choices" not in asked["content"]
    assert "a wolf" not in asked["content"]


def test_shots_are_turns_of_a_chat() -> None:
    shot = example(id="2", rationale="a dog barks . a cat meows .")
    chat = read_prompt("builtin", "nothing", [shot], example()).messages(example(), "rationale")
    assert [message["role"] for message in chat] == ["user", "assistant", "user"]
    assert chat[1]["content"] == "a dog barks . a cat meows .\nAnswer: no"
    chat = read_prompt("builtin", "answer", [shot], example()).messages(example(), "rationale")
    assert chat[1]["content"] == "a dog barks . a cat meows ."


def test_a_file_is_a_template(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("{{ question }} ({{ choices | join(' or ') }}) It is {{ answer }}: why?\n")
    (asked,) = read_prompt(str(file), "answer", [], example()).messages(example(), "rationale")
    assert asked["content"] == "do a dog and a cat both bark ? (yes or no) It is no: why?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Why?", "must have the field {{ question }}"),
        ("{{ question }} {{ hint }}", "has no field 'hint'"),
        ("{{ question }} {{ answer }}", "shows the right answer"),
        ("one\n{% if %} {{ question }}", ":2: not a Jinja template"),
    ],
)
def test_a_file_that_cannot_be_a_prompt_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text(text)
    with pytest.raises(UserError, match=r"^write\.prompt: ") as refused:
        read_prompt(str(file), "nothing", [], example())
    assert said in str(refused.value)


def test_a_template_reaches_nothing_but_the_example(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("{{ question }} {{ question.__class__ }}")
    with pytest.raises(UserError, match="cannot be filled in"):
        read_prompt(str(file), "answer", [], example())
