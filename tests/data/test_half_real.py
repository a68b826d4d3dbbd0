"""Half-real worlds: true to their files, balanced, without a question twice, split as asked."""

from collections import Counter

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from knife.config.facts import Facts
from knife.config.run import Data
from knife.core.errors import UserError
from knife.data.example import Example, Splits
from knife.data.half_real import _FOLDER, HALF_REAL, half_real
from knife.data.source import load_source, source_state

SMALL = Facts(names=28, train=80, dev=8, test=16)


def every(splits: Splits) -> list[Example]:
    return [*splits.train, *splits.dev, *splits.test]


def names_of(example: Example) -> set[str]:
    return set(example.id.split("-", 1)[1].split("|"))


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.dev), len(splits.test)


@pytest.mark.parametrize("source", HALF_REAL)
def test_a_world_says_what_its_file_says(source: str) -> None:
    read = yaml.safe_load((_FOLDER / f"{source}.yaml").read_text())
    attributes = list(read["attributes"])
    for example in every(half_real(source, SMALL)):
        attribute = example.id.split("-")[0]
        place = attributes.index(attribute)
        values = {name: read["names"][name][place] for name in names_of(example)}
        facts = read["attributes"][attribute]["facts"]
        said = example.rationale or ""
        for name, value in values.items():
            assert any(fact.format(n=name, v=value) in said for fact in facts)
        assert (example.answer == 0) == (len(set(values.values())) == 1)
        assert all(name in example.question for name in values)


@pytest.mark.parametrize("source", HALF_REAL)
def test_names_of_test_are_in_no_training_question_when_split_by_names(source: str) -> None:
    splits = half_real(source, SMALL.model_copy(update={"split": "names", "dev": 8}))
    train, dev, test = ({n for e in part for n in names_of(e)} for part in splits.parts.values())
    assert dev <= train
    assert not train & test
    pairs = half_real(source, SMALL)
    assert (pairs.train, pairs.dev) == (splits.train, splits.dev)
    assert len({n for e in every(pairs) for n in names_of(e)}) == 28


@settings(max_examples=20, deadline=None)
@given(
    source=st.sampled_from(HALF_REAL),
    seed=st.integers(0, 99),
    split=st.sampled_from(["pairs", "names"]),
)
def test_a_world_is_balanced_and_asks_nothing_twice(source: str, seed: int, split: str) -> None:
    world = Facts.model_validate(
        {"names": 20, "train": 20, "dev": 8, "test": 16, "seed": seed, "split": split}
    )
    splits = half_real(source, world)
    assert splits == half_real(source, world)
    other = half_real(source, world.model_copy(update={"seed": seed + 1}))
    assert other != splits
    assert sizes(splits) == (20, 8, 16)
    topics = Counter(example.id for example in every(splits))
    assert set(topics.values()) == {1}
    for part in splits.parts.values():
        answers = Counter((example.id.split("-")[0], example.answer) for example in part)
        for attribute in {attribute for attribute, _ in answers}:
            assert abs(answers[attribute, 0] - answers[attribute, 1]) <= 1


def test_worlds_that_cannot_be_drawn_are_refused_with_what_would_be_possible() -> None:
    with pytest.raises(UserError) as caught:
        half_real("stars", Facts(names=8, train=500, dev=150, test=300))
    assert len(caught.value.errors) == 6
    assert all("ask fewer, or change data.facts.names" in error for error in caught.value.errors)
    with pytest.raises(UserError, match="stars has 104 names, but got 105; give fewer"):
        half_real("stars", Facts(names=105))


def test_what_is_kept_of_a_world_changes_with_its_facts() -> None:
    kept = source_state(Data(source="stars"))
    assert kept == ["stars", (_FOLDER / "stars.yaml").read_text()]
    assert kept != source_state(Data(source="enzymes"))


def test_a_world_is_a_source_and_its_licence_is_said() -> None:
    splits = load_source(Data(source="stars", facts=SMALL))
    assert splits.notes[0].startswith("stars: facts of ephem 4.2.1 (MIT)")
