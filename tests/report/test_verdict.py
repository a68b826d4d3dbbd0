import json

import numpy as np
import pytest

from knife.stats.compare import holm
from knife.stats.verdict import Ceiling, Verdict, verdict

Predictions = dict[int, dict[str, bool]]


def predictions(**right: dict[int, str]) -> dict[str, Predictions]:
    """`finetune={0: "1001"}`: right or wrong for the examples e0, e1, …"""
    return {
        method: {
            seed: {f"e{i}": mark == "1" for i, mark in enumerate(marks)}
            for seed, marks in by_seed.items()
        }
        for method, by_seed in right.items()
    }


def test_verdict() -> None:
    ceiling = Ceiling(0.9, None)
    found = verdict(
        predictions(
            finetune={0: "1000", 1: "1100", 2: "1000"},
            knife={2: "1111", 1: "1110", 0: "0110"},
            one={1: "1111"},
        ),
        ceiling=ceiling,
    )
    finetune, knife, one = found.methods
    assert finetune.accuracy == pytest.approx(1 / 3)
    assert (finetune.seeds, finetune.examples) == (3, 4)
    assert finetune.sd == pytest.approx(np.std([0.25, 0.5, 0.25], ddof=1))
    assert finetune.difference is None
    assert knife.accuracy == pytest.approx(0.75)
    assert knife.difference is not None
    assert knife.difference.points == pytest.approx(100 * (0.25 + 0.25 + 0.75) / 3)
    assert one.sd is None
    assert one.difference is not None
    assert (one.difference.points, one.difference.seeds) == (50, 1)
    assert found.notes == (
        "one: one seed: interval and p value cover the choice of examples, not that of the seed.",
        "The p values are corrected for 2 comparisons (Holm).",
    )
    assert (one.difference.gained, one.difference.lost) == (2, 0)
    assert found.margin == 2
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain == found.to_dict()
    assert Verdict.from_dict(plain) == found
    assert plain["ceiling"] == {"with_rationale": 0.9, "without_rationale": None}


def test_examples_are_paired_by_id_not_by_order() -> None:
    marks = {0: "10111111", 1: "10111111"}
    by_seed = predictions(finetune={0: "10100000", 1: "10000000"}, knife=marks)
    by_seed["knife"][1] = dict(reversed(by_seed["knife"][1].items()))
    difference = verdict(by_seed).methods[1].difference
    assert difference is not None
    assert (difference.gained, difference.lost) == (11, 0)
    assert difference.gained_ids == ("e3", "e4", "e5", "e6", "e7")
    assert difference.lost_ids == ()
    assert difference.points == pytest.approx(100 * 11 / 16)


def test_p_values_are_corrected_for_all_comparisons() -> None:
    generator = np.random.default_rng(0)

    def marks(share: float) -> str:
        return "".join("01"[int(x < share)] for x in generator.random(200))

    shares = {"finetune": 0.5, "knife": 0.65, "one": 0.55, "two": 0.5}
    made = {name: {s: marks(share) for s in range(3)} for name, share in shares.items()}
    found = verdict(predictions(**made))
    differences = [m.difference for m in found.methods if m.difference]
    raw, adjusted = ([getattr(d, name) for d in differences] for name in ("p", "p_adjusted"))
    assert adjusted == pytest.approx(holm(raw))
    assert adjusted != raw
    assert found.notes == ("The p values are corrected for 3 comparisons (Holm).",)
    # One comparison needs no correction.
    single = verdict(predictions(finetune={0: "1100"}, knife={0: "1010"}))
    assert single.methods[1].difference is not None
    assert single.methods[1].difference.p_adjusted == single.methods[1].difference.p == 1


def test_what_is_true_of_all_methods_is_said_once() -> None:
    found = verdict(predictions(finetune={0: "1100"}, knife={0: "1010"}, one={0: "1111"}))
    assert [note.split(":")[0] for note in found.notes[:-1]] == ["all methods"]


def test_without_the_baseline() -> None:
    found = verdict(predictions(knife={0: "10"}))
    assert found.methods[0].difference is None
    assert found.notes == (
        "finetune is not among the methods, so there is nothing to compare with.",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        predictions(finetune={0: "10"}, knife={1: "10"}),
        predictions(finetune={0: "10"}, knife={0: "101"}),
        predictions(finetune={0: "10", 1: "101"}),
    ],
)
def test_what_cannot_be_paired(wrong: dict[str, Predictions]) -> None:
    with pytest.raises(ValueError, match=r"share no seed|the same examples"):
        verdict(wrong)
