"""What is read of data before a run."""

import json
from dataclasses import asdict, replace

import pytest

from knife.config.run import World
from knife.data.creatures import creatures
from knife.data.example import Example, Splits
from knife.forecast import features as module
from knife.forecast.features import Features, features

WORLD = creatures(World(creatures=48, train=400, dev=60, test=1, cue=0))


def without(examples: list[Example]) -> list[Example]:
    return [replace(example, rationale=None) for example in examples]


def test_shares_are_of_hand_counted_facts() -> None:
    def example(name: str, rationale: str | None) -> Example:
        return Example(name, f"does a {name} swim ?", ("yes", "no"), 0, rationale)

    train = [example(f"t{n}", "a kebik lives in the swamp .") for n in range(6)]
    train += [example(f"u{n}", "a glofol eats honey .") for n in range(2)]
    train += [example(f"v{n}", None) for n in range(2)]
    dev = [
        example("kebik", "a kebik lives in the swamp . a glofol eats honey ."),
        example("trumez", "a trumez eats honey at night alone ."),
        example("zwopif", "so the answer is yes ."),
        example("glofol", None),
    ]
    found = features(Splits(train, dev, dev))
    assert (found.examples, found.explained, found.asked, found.own) == (10, 0.8, 3, False)
    assert found.facts == 1
    # 6 and 2 for the first rationale, 0 for the second, and none for the third, which is a 0 too.
    assert (found.mentions, found.mean_mentions) == (1, 2)
    assert found.at_least == {1: 0.5, 2: 0.5, 3: 0.25, 5: 0.25, 8: 0, 12: 0, 20: 0, 40: 0}
    assert found.recurring == 0.25
    # Too few answers of each kind for a classifier.
    assert (found.question, found.chance, found.headroom, found.leak) == (None, None, 0, 0)


def test_train_is_asked_about_itself_if_dev_has_no_rationale() -> None:
    dev = features(WORLD)
    train = features(replace(WORLD, dev=without(list(WORLD.dev))))
    assert (dev.own, train.own) == (False, True)
    assert (dev.asked, train.asked) == (60, 400)
    # A fact of train has one fewer to be stated by.
    assert train.mean_mentions == pytest.approx(dev.mean_mentions, rel=0.15)


def test_a_part_of_train_says_how_often_facts_are_in_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = features(WORLD)
    monkeypatch.setattr(module, "_TRAIN", 200)
    part = features(WORLD)
    assert part.examples == whole.examples == 400
    assert part.mean_mentions == pytest.approx(whole.mean_mentions, rel=0.15)
    # Rationales of train are those of the part.
    own = features(replace(WORLD, dev=without(list(WORLD.dev))))
    assert own.mean_mentions == pytest.approx(whole.mean_mentions, rel=0.2)


def test_what_the_question_alone_tells_is_no_headroom() -> None:
    def telling(number: int) -> Example:
        answer = number % 2
        word = ("up", "down")[answer]
        return Example(str(number), f"is {number} {word} ?", ("yes", "no"), answer, f"a b{number}")

    train = [telling(number) for number in range(60)]
    found = features(Splits(train, train[:10], train[:10]))
    assert (found.question, found.chance, found.headroom) == (1, 0.5, 0)
    plain = features(WORLD)
    assert plain.question == pytest.approx(0.5, abs=0.1)
    assert plain.headroom == pytest.approx(100 * (1 - (plain.question or 0)))


def test_rationales_that_say_the_answer_leak() -> None:
    said = [replace(e, rationale=f"the answer is {e.choices[e.answer]} .") for e in WORLD.train]
    assert features(replace(WORLD, train=said)).leak == 1
    assert features(WORLD).leak < 0.2


def test_answers_of_dev_and_test_are_not_read() -> None:
    dev = [replace(example, answer=1 - example.answer) for example in WORLD.dev]
    test = [replace(each, answer=1 - each.answer, rationale=None) for each in WORLD.test]
    assert features(replace(WORLD, dev=dev, test=test)) == features(WORLD)


def test_open_answers_have_no_chance() -> None:
    train = [Example(str(n), f"who is {n} ?", (f"x{n}",), 0, f"x{n} is {n} .") for n in range(20)]
    found = features(Splits(train, train[:5], train[:5]))
    assert (found.question, found.chance, found.leak) == (None, None, 0)


def test_features_survive_json() -> None:
    found = features(WORLD)
    assert Features.from_dict(json.loads(json.dumps(asdict(found)))) == found
