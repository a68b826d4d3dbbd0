"""What ships is what was fitted, does as well as its page says, and was fitted to sound data."""

import importlib.util
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest

from knife.forecast.gain import Fitted

ROOT = Path(__file__).parents[2]


def module(folder: str, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", ROOT / folder / f"{name}.py")
    assert spec
    assert spec.loader
    found = importlib.util.module_from_spec(spec)
    # Where dataclasses look their module up.
    sys.modules[spec.name] = found
    spec.loader.exec_module(found)
    return found


SCRIPT, BENCH = module("scripts", "fit_forecast"), module("bench", "forecast")


@pytest.mark.parametrize("name", SCRIPT.NAMES)
def test_the_shipped_curve_is_the_one_that_fits_the_measured_gains(name: str) -> None:
    found = SCRIPT.fitted_curve(SCRIPT.read("fit"), name)
    assert asdict(found) == pytest.approx(asdict(Fitted.load(name).curve), abs=0.05, rel=0.05)


def test_the_page_says_how_well_it_does_on_conditions_that_the_fit_did_not_see() -> None:
    assert SCRIPT.PART.search(SCRIPT.PAGE.read_text(encoding="utf-8"))[0] == SCRIPT.part()


GOOD = BENCH.Condition("fit-1", "tiny-t5", 1, 32, 2, 6.0, 0.0)


def pairs(rows: list[dict[str, str]]) -> set[frozenset[str]]:
    """Return which creatures are asked about what, by words that are names or attributes."""
    return {frozenset([*name_words(row["question"]), topic(row["question"])]) for row in rows}


def name_words(text: str) -> list[str]:
    return [word for word in text.split() if word in BENCH_NAMES]


def topic(question: str) -> str:
    return next(
        word
        for word in ("place", "lives", "food", "eats", "colour", "is")
        if word in question.split()
    )


BENCH_NAMES = set(BENCH.facts_of(BENCH.World(creatures=64, seed=0))["home"])


def test_no_pair_of_creatures_is_trained_and_tested() -> None:
    splits = BENCH.Written(GOOD).splits()
    train = pairs(splits["train"])
    assert not train & pairs(splits["test"])
    assert not train & pairs(splits["dev"])
    assert (len(splits["train"]), len(splits["dev"]), len(splits["test"])) == (192, 100, 300)
    for rows in splits.values():
        share = Counter(row["answer"] for row in rows)
        assert abs(share["yes"] - share["no"]) <= 1


def test_data_are_worse_in_the_ways_that_a_condition_says() -> None:
    def shares(**changes: float) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = BENCH.Written(replace(GOOD, **changes)).splits()["train"]
        return rows

    total = len(shares())
    dropped = shares(dropped=0.5)
    assert sum("rationale" not in row for row in dropped) == pytest.approx(total / 2, abs=25)
    leaking = [row["rationale"] for row in shares(leak=1.0, bare=1.0)]
    assert all(text.startswith("so the answer is ") for text in leaking)
    off = [set(name_words(r["question"])) & set(name_words(r["rationale"])) for r in shares(off=1)]
    assert not any(off)
    right = {text for row in shares() for text in facts_of(row)}
    wrong = [text in right for row in shares(wrong=1) for text in facts_of(row)]
    assert not any(wrong)
    told = [row["question"] for row in shares(cue=1.0)]
    assert all(VALUES & set(question.split()) for question in told)
    assert not any(VALUES & set(row["question"].split()) for row in shares())
    unseen = BENCH.Written(replace(GOOD, unseen=1.0)).splits()
    known = {name for row in unseen["train"] for name in name_words(row["question"])}
    assert not known & {name for row in unseen["test"] for name in name_words(row["question"])}


VALUES = {value for attribute in BENCH.ATTRIBUTES for value in attribute.values}


def facts_of(row: dict[str, str]) -> list[tuple[str, ...]]:
    """Return name and value of each sentence of a rationale."""
    parts = row["rationale"].split(" .")
    return [
        tuple(sorted(word for word in part.split() if word in BENCH_NAMES | VALUES))
        for part in parts
        if part.strip()
    ]


def test_other_conditions_are_tested_than_fitted() -> None:
    fit, test = BENCH.conditions("fit", BENCH.FIT), BENCH.conditions("test", BENCH.TEST)
    assert not {(c.creatures, c.attributes) for c in fit} & {
        (c.creatures, c.attributes) for c in test
    }
    assert not {c.seed for c in fit} & {c.seed for c in test}
