"""`knife data check` and `knife data show`."""

import json
from pathlib import Path

from command_fixtures import Command

from knife.config.run import World
from knife.data.creatures import creatures
from knife.data.jsonl import write_examples

SMALL_WORLD = ("data.world.train=40", "data.world.dev=20", "data.world.test=20")


def test_check_reports_every_split(command: Command) -> None:
    ended = command("data", "check", "creatures", *SMALL_WORLD)
    assert ended.status == 0
    assert ended.err == ""
    assert "train: 40 examples\n" in ended.out
    assert "dev: 20 examples\n" in ended.out
    assert "  rationales: 40 (100 %)\n" in ended.out


def test_check_sees_the_data_as_a_run_would(command: Command) -> None:
    words = ("data.fraction=0.5", "data.rationale=dropped:0.5")
    ended = command("data", "check", "creatures", *SMALL_WORLD, *words, "--json")
    splits = json.loads(ended.out)["splits"]
    assert splits["train"]["examples"] == 20
    assert splits["train"]["rationales"] == 10
    assert splits["dev"]["examples"] == 20


def test_check_of_a_folder_says_what_it_made(command: Command, tmp_path: Path) -> None:
    write_examples(tmp_path / "train.jsonl", creatures(World(train=50, dev=1, test=1)).train)
    ended = command("data", "check", tmp_path)
    assert ended.status == 0
    assert "note: no test split: 10 of the 50 training examples became test" in ended.out


def test_show_tells_what_the_model_reads(command: Command) -> None:
    example = creatures(World(train=40, dev=20, test=20)).train[0]
    ended = command("data", "show", "creatures", *SMALL_WORLD, "-n", "2")
    assert ended.status == 0
    first, second = ended.out.strip().split("\n\n")
    assert first.splitlines() == [
        f"id:         {example.id}",
        f"task input: question: {example.question} choices: (a) yes (b) no",
        f"rationale:  explanation: {example.rationale}",
        f"answer:     {example.choices[example.answer]}",
    ]
    assert second.startswith("id: ")


def test_show_with_a_model_tells_input_rationale_and_cut_tokens(command: Command) -> None:
    words = ("data", "show", "creatures", *SMALL_WORLD, "-n", "1", "--model", "tiny-t5")
    whole = _tokens(command(*words).out)
    assert whole.keys() == {"task input", "rationale"}
    limit = len(whole["task input"]) + len(whole["rationale"]) - 3
    short = _tokens(command(*words, f"data.max_tokens={limit}").out)
    assert short["task input"] == whole["task input"]
    # The closing token is kept, so four tokens are removed to make room for three.
    assert short["rationale"] == [*whole["rationale"][:-4], "</s>"]
    assert short["cut"] == whole["rationale"][-4:-1]


def test_show_of_a_model_that_is_not_there(command: Command) -> None:
    (error,) = command("data", "show", "creatures", *SMALL_WORLD, "--model", "tiny-t").errors
    assert error.startswith("--model: 'tiny-t' is neither an existing folder nor a hub id")


def _tokens(out: str) -> dict[str, list[str]]:
    """Return tokens by the name of their part, checked against the number printed beside them."""
    parts = {}
    for line in out.splitlines():
        head, found, rest = line.partition(" tokens, ")
        if found:
            name, _, tokens = rest.partition(": ")
            parts[name] = tokens.split(" ")
            assert len(parts[name]) == int(head)
    return parts
