"""Scores of rationales, by hand."""

import io
import json
from collections.abc import Iterable
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from knife.report.rationale_table import render
from knife.stats.rationale_scores import (
    RationaleScores,
    Relation,
    Scored,
    rationale_scores,
    relation,
)


def rows(values: Iterable[tuple[float, int, bool, float, float | None]]) -> list[Scored]:
    """Make rows of without, explained, leaks, REV and gain; the leak is minus the row's number."""
    return [
        Scored(str(n), without, float(explained), leaks, -float(n), rev / 2, rev, 1.0, gain)
        for n, (without, explained, leaks, rev, gain) in enumerate(values)
    ]


MIXED = rows(
    [
        (0.0, 1, True, 2.0, 1.0),
        (0.5, 1, True, 1.0, 0.5),
        (1.0, 1, True, 0.0, 0.0),
        (1.0, 0, True, -1.0, -0.5),
        (0.5, 1, False, 0.5, 0.25),
        (0.0, 0, False, 0.2, 0.0),
    ]
)


def text(scores: RationaleScores) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(render(scores))
    return out.getvalue()


def test_rq_las_and_rev_by_hand() -> None:
    found = rationale_scores(MIXED, seeds=2)
    assert (found.examples, found.seeds) == (6, 2)
    assert (found.without, found.explained) == (3 / 6, 4 / 6)
    assert found.rationale_only == 4 / 6
    assert found.rq == pytest.approx(1 / 6)
    # Leaking: 1 + 0.5 + 0 - 1 over four; not leaking: 0.5 + 0 over two.
    assert (found.gain_leaking, found.gain_other) == (0.125, 0.25)
    assert found.las == (0.125 + 0.25) / 2
    assert found.rev == pytest.approx(2.7 / 6)
    assert found.information == pytest.approx(2.7 / 12)
    assert found.room == 1
    assert found.notes == ()


def test_rev_without_room_is_said() -> None:
    found = rationale_scores([replace(row, room=0.01) for row in MIXED], seeds=2)
    assert any("REV is at most 0.010 nats" in note for note in found.notes)


def test_las_weighs_its_groups_alike_however_large_they_are() -> None:
    # Leaking rationales help and others are useless: RQ is high if many leak.
    leaking = [(0.0, 1, True, 0.0, None)] * 9
    found = rationale_scores(rows([*leaking, (1.0, 1, False, 0.0, None)]), seeds=1)
    assert found.rq == pytest.approx(0.9)
    assert found.las == 0.5


def test_rationales_of_other_examples_help_nowhere() -> None:
    values = [(w, int(w), n % 3 == 0, 0.0, 0.0) for n, w in enumerate([0.0, 1.0] * 6)]
    found = rationale_scores(rows(values), seeds=3)
    assert (found.rq, found.las, found.rev) == (0, 0, 0)
    assert found.relations[0].rho is None
    assert found.notes == ("scores or gains are all equal: no rank correlation.",)


@pytest.mark.parametrize(
    ("leaks", "words"), [(True, "every rationale leaks"), (False, "no rationale leaks")]
)
def test_without_one_of_its_groups_las_has_no_value(leaks: bool, words: str) -> None:
    found = rationale_scores(rows([(0.0, 1, leaks, 1.0, 0.5), (1.0, 1, leaks, 0.0, 0.0)]), seeds=2)
    assert found.las is None
    assert found.rq == 0.5
    assert any(words in note for note in found.notes)
    assert "none" in text(found)


def test_without_gains_nothing_is_related_and_it_is_said() -> None:
    found = rationale_scores(rows([(0.0, 1, True, 1.0, None), (1.0, 1, False, 0.0, None)]), seeds=2)
    assert found.relations == ()
    assert found.notes == ("the gain of knife is unknown, so it is not related to the scores.",)
    assert found.notes[0] in text(found).replace("\n", " ")


def test_one_seed_is_said() -> None:
    assert any("one seed" in note for note in rationale_scores(MIXED, seeds=1).notes)


def test_relation_by_thirds_and_ranks() -> None:
    gains = [0.0, 0.1, 0.2, 0.5, 0.9, 1.0]
    found = relation("REV", [-3.0, -1.0, 0.0, 0.5, 4.0, 9.0], gains)
    assert found.thirds == pytest.approx((0.05, 0.35, 0.95))
    assert found.rho == pytest.approx(1)
    assert found.p == pytest.approx(0, abs=1e-6)
    found = relation("REV", [3.0, 1.0, 2.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0])
    # 1 - 6 * (2^2 + 1 + 1) / (5 * 24); p of t = rho * sqrt(3 / (1 - rho^2)) with 3 degrees.
    assert found.rho == pytest.approx(0.7)
    assert found.p == pytest.approx(0.18812, abs=1e-5)


def test_relation_of_too_little() -> None:
    assert relation("REV", [1.0, 2.0], [0.0, 1.0]) == Relation("REV", (), None, None)
    assert relation("REV", [1.0] * 3, [0.0, 1.0, 2.0]).rho is None


def test_report_as_json_and_text() -> None:
    found = rationale_scores(MIXED, seeds=2)
    values = json.loads(json.dumps(asdict(found)))
    assert values["relations"][0]["score"] == "REV"
    shown = text(found)
    assert "+16.7 points" in shown
    assert "+18.8 points" in shown
    assert "+0.450 nats" in shown
    assert "6 test examples with a rationale, 2 seeds." in shown
    assert "gain of knife in points by REV: lowest third" in shown
