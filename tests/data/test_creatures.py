"""The embedded world: balanced, disjoint splits, true rationales, readable by the tiny models."""

import re
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import batch_of, tokens_of
from transformers import AutoTokenizer

from knife.config.run import World
from knife.core.errors import UserError
from knife.data.creatures import (
    ATTRIBUTES,
    FIRST_SYLLABLES,
    SECOND_SYLLABLES,
    WORLD_NAMES,
    creatures,
)
from knife.data.example import Example, Splits
from knife.models.load import load_backbone
from knife.models.source import EMBEDDED

SMALL = World(creatures=24, train=120, dev=40, test=80, cue=0.5, which=0.25, seed=3)
PLAIN = SMALL.model_copy(update={"cue": 0.0, "which": 0.0})
VALUES = {value for attribute in ATTRIBUTES for value in attribute.values}
NAME = rf"(?:{'|'.join(FIRST_SYLLABLES)})(?:{'|'.join(SECOND_SYLLABLES)})"


def every(splits: Splits) -> list[Example]:
    return [*splits.train, *splits.dev, *splits.test]


def kind(example: Example) -> str:
    """Return what the question asks about, from its words."""
    for word, name in {"live": "home", "lives": "home", "eat": "diet", "eats": "diet"}.items():
        if f" {word} " in example.question:
            return name
    return "colour"


def facts_of(example: Example) -> list[tuple[str, str]]:
    """Return (name, value) of each sentence of the rationale, in order."""
    assert example.rationale is not None
    facts = []
    for sentence in example.rationale.split(" ."):
        if sentence.strip():
            (name,) = re.findall(NAME, sentence)
            (value,) = [word for word in sentence.split() if word in VALUES]
            facts.append((name, value))
    return facts


def is_which(example: Example) -> bool:
    return example.question.startswith("which one")


def test_same_world_same_splits_and_another_seed_another_world() -> None:
    assert creatures(SMALL) == creatures(SMALL)
    other = creatures(SMALL.model_copy(update={"seed": 4}))
    assert {e.question for e in every(other)} != {e.question for e in every(creatures(SMALL))}


def test_a_world_is_the_same_on_every_machine() -> None:
    first = creatures(World(creatures=12, train=4, dev=2, test=2, cue=0.5, seed=0)).train[0]
    assert first == Example(
        id="diet-drofol-tralub",
        question="do a honey eating drofol and a honey eating tralub eat the same food ?",
        choices=("yes", "no"),
        answer=0,
        rationale="a drofol eats honey . a tralub eats honey .",
    )


def test_sizes_and_ids() -> None:
    splits = creatures(SMALL)
    assert [len(s) for s in (splits.train, splits.dev, splits.test)] == [120, 40, 80]
    assert len({example.id for example in every(splits)}) == 240


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_balance_in_every_split(split: str) -> None:
    examples = getattr(creatures(SMALL), split)
    which = [e for e in examples if is_which(e)]
    assert len(which) == len(examples) / 4
    for group in (which, [e for e in examples if not is_which(e)]):
        answers = Counter(e.answer for e in group)
        assert abs(answers[0] - answers[1]) <= 1
    cued = [e for e in examples if set(e.question.split()) & VALUES and not is_which(e)]
    assert len(cued) == pytest.approx(len(examples) * 0.75 * 0.5, abs=1)


def test_cues_do_not_tell_the_answer() -> None:
    splits = creatures(SMALL)
    for answer in (0, 1):
        group = [e for e in every(splits) if e.answer == answer and not is_which(e)]
        cued = [e for e in group if set(e.question.split()) & VALUES]
        assert len(cued) == pytest.approx(len(group) / 2, abs=2)


def test_no_pair_is_asked_about_an_attribute_twice_in_whatever_order() -> None:
    topics = [
        (kind(e), frozenset(name for name, _ in facts_of(e))) for e in every(creatures(SMALL))
    ]
    assert len(set(topics)) == len(topics)
    assert all(len(pair) == 2 for _, pair in topics)


@pytest.mark.parametrize("world", [SMALL, PLAIN])
def test_every_answer_follows_from_the_rationale_alone(world: World) -> None:
    for example in every(creatures(world)):
        (first, first_value), (second, second_value) = facts_of(example)
        assert re.findall(NAME, example.question) == [first, second]
        if is_which(example):
            asked = example.question.split(",")[0].split()[-1]
            right = [name for name, value in facts_of(example) if value == asked]
            assert right == [example.choices[example.answer]]
            assert example.choices == (first, second)
        else:
            assert example.choices == ("yes", "no")
            same = first_value == second_value
            assert example.choices[example.answer] == ("yes" if same else "no")


def test_rationales_never_contradict_each_other() -> None:
    facts: dict[tuple[str, str], str] = {}
    for example in every(creatures(SMALL)):
        for name, value in facts_of(example):
            assert facts.setdefault((kind(example), name), value) == value


def test_facts_stand_in_cued_questions_only() -> None:
    for example in every(creatures(PLAIN)):
        assert not set(example.question.split()) & VALUES
    for example in every(creatures(SMALL.model_copy(update={"cue": 1.0}))):
        said = [word for word in example.question.split() if word in VALUES]
        assert said[-2:] == [value for _, value in facts_of(example)]


def test_questions_alone_do_not_give_the_answer_away() -> None:
    # No attribute or creature alone predicts the answer: yes and no are about even.
    examples = every(creatures(World(creatures=48, train=800, dev=200, test=400, cue=0)))
    for attribute in ATTRIBUTES:
        group = [e.answer for e in examples if kind(e) == attribute.name]
        assert sum(group) / len(group) == pytest.approx(0.5, abs=0.06)


def test_too_large_is_refused_with_the_most_that_fits() -> None:
    with pytest.raises(UserError) as refused:
        creatures(World(creatures=12, train=700, dev=200, test=400))
    (error,) = refused.value.errors
    assert "data.world.train" in error
    assert "data.world.creatures" in error
    most = re.search(r"at most (\d+) questions", error)
    assert most
    fits = int(most[1])
    assert len(creatures(World(creatures=12, train=fits - 2, dev=1, test=1)).train) == fits - 2
    with pytest.raises(UserError):
        creatures(World(creatures=12, train=fits, dev=2, test=2))


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(4, 64),
    train=st.integers(1, 300),
    cue=st.floats(0, 1),
    which=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_any_world_is_whole_or_refused(
    size: int, train: int, cue: float, which: float, seed: int
) -> None:
    world = World(creatures=size, train=train, dev=5, test=7, cue=cue, which=which, seed=seed)
    try:
        splits = creatures(world)
    except UserError:
        pairs = size * (size - 1) // 2 * len(ATTRIBUTES)
        assert train + 12 > pairs / 12
        return
    assert [len(s) for s in (splits.train, splits.dev, splits.test)] == [train, 5, 7]
    assert len({e.id for e in every(splits)}) == train + 12


def test_names_are_apart_and_two_tokens_each() -> None:
    assert len(set(WORLD_NAMES)) == 64
    for asset in EMBEDDED.values():
        tokenizer = AutoTokenizer.from_pretrained(asset)
        for first in FIRST_SYLLABLES:
            for second in SECOND_SYLLABLES:
                assert tokenizer.tokenize(first + second) == [first, "##" + second]


@pytest.mark.parametrize("model", EMBEDDED)
def test_the_tiny_models_know_every_word(model: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED[model])
    tokens, _ = tokens_of(EMBEDDED[model], every(creatures(SMALL)))
    for example in tokens:
        for ids in (example.input_ids, example.rationale_ids, *example.choice_ids):
            assert tokenizer.unk_token_id not in ids
        assert all(ids[-1] == tokenizer.eos_token_id for ids in example.choice_ids)


@pytest.mark.parametrize("model", EMBEDDED)
def test_the_tiny_models_are_small_and_load(model: str) -> None:
    files = [path for path in EMBEDDED[model].iterdir() if path.is_file()]
    assert {path.name for path in files} - {"answer_head.safetensors"} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in files) < 2_000_000
    backbone: Any = load_backbone(EMBEDDED[model])
    loaded = backbone.encoder if model == "tiny-bert" else backbone.model
    assert loaded.dtype == torch.float32
    assert f"tiny-{loaded.config.model_type}" == model
    assert 150_000 < loaded.num_parameters() < 250_000


@pytest.mark.parametrize("model", EMBEDDED)
def test_the_tiny_models_read_facts_that_they_have_never_seen(model: str) -> None:
    # With rationale and without bottleneck they need no training; without, they have to guess.
    backbone: Any = load_backbone(EMBEDDED[model], bottleneck=False).eval()
    tokens, pad = tokens_of(EMBEDDED[model], creatures(PLAIN).test)
    accuracy = {}
    for explained in (True, False):
        batch = batch_of(tokens, pad, rationale=explained)
        with torch.no_grad():
            right = backbone(batch).scores_BC.argmax(-1) == batch.answer_B
        accuracy[explained] = float(right.float().mean())
    assert accuracy[True] > 0.95
    assert accuracy[False] < 0.7
