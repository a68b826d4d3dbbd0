"""Scores of rationales, from predictions alone; the equations are in docs/rationale-quality.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

# If REV can be at most this, in nats, it cannot tell rationales apart.
LEAST_ROOM = 0.05
THIRDS = ("lowest third", "middle third", "highest third")


@dataclass(frozen=True, slots=True)
class Scored:
    """The measurements of one example that has a rationale.

    Attributes:
        id: the example's id.
        without: share of the seeds whose finetuned student is right, I -> O.
        explained: 1 if the teacher is right, I + R -> O, else 0; 1/k in a tie of k choices.
        leaks: the same for a model of the rationale alone, R -> O.
        leak: that model's log-probability of the right answer, in nats.
        information: log p(O | I, R) - log p(O | I), in nats, the latter averaged over seeds.
        rev: log p(O | R, B) - log p(O | B), in nats.
        room: -log p(O | B), in nats, the upper bound of `rev`.
        gain: share of the seeds in which `knife` is right, minus `without`; None if unknown.
    """

    id: str
    without: float
    explained: float
    leaks: float
    leak: float
    information: float
    rev: float
    room: float
    gain: float | None = None


@dataclass(frozen=True, slots=True)
class Relation:
    """How the gain of `knife` relates to a score.

    Attributes:
        score: the score's name.
        thirds: mean gain of the examples with the lowest, the middle and the highest scores, from
            -1 to 1; empty with fewer than three examples.
        rho, p: Spearman's rank correlation, and the probability of one at least this far from 0 by
            chance; None if scores or gains are all equal or there are fewer than three.
    """

    score: str
    thirds: tuple[float, ...]
    rho: float | None
    p: float | None


@dataclass(frozen=True, slots=True)
class RationaleScores:
    """The scores of a split's rationales; accuracies and their differences from 0 to 1.

    Attributes:
        examples, seeds: their numbers.
        without, explained: accuracy of I -> O, and of I + R -> O.
        rationale_only: accuracy of R -> O, which is the share of rationales that leak.
        rq: `explained` - `without`.
        gain_leaking, gain_other: the same over the rationales that leak and over the others, with
            ties counted in part in both; None if there are none.
        las: mean of these two; None if either is None.
        information, rev: means over the examples, in nats.
        room: upper bound of `rev`: the mean of -log p(O | B).
        relations: of the gain of `knife` to each score; empty if the gain is unknown.
        notes: what a reader needs to know, one sentence each.
    """

    examples: int
    seeds: int
    without: float
    explained: float
    rationale_only: float
    rq: float
    gain_leaking: float | None
    gain_other: float | None
    las: float | None
    information: float
    rev: float
    room: float
    relations: tuple[Relation, ...]
    notes: tuple[str, ...]


def rationale_scores(rows: Sequence[Scored], seeds: int) -> RationaleScores:
    """Compute all scores of one or more examples, whose shares are over `seeds` seeds."""
    assert rows
    differences = [row.explained - row.without for row in rows]
    leaking, other = (
        fmean(differences, shares) if any(shares) else None
        for shares in ([row.leaks for row in rows], [1 - row.leaks for row in rows])
    )
    notes = []
    for gain, words in ((leaking, "no rationale leaks"), (other, "every rationale leaks")):
        if gain is None:
            notes.append(
                f"{words} its answer, so LAS lacks one of its two groups and has no value."
            )
    las = None if leaking is None or other is None else (leaking + other) / 2
    room = fmean(row.room for row in rows)
    if room < LEAST_ROOM:
        notes.append(
            f"the vacuous rationale alone determines the answer (REV is at most {room:.3f} nats), "
            "so REV hardly distinguishes rationales."
        )
    relations: tuple[Relation, ...] = ()
    gains = [row.gain for row in rows if row.gain is not None]
    if len(gains) < len(rows):
        notes.append("the gain of knife is unknown, so it is not related to the scores.")
    else:
        relations = (
            relation("REV", [row.rev for row in rows], gains),
            relation("leak", [row.leak for row in rows], gains),
        )
        if any(r.rho is None for r in relations):
            notes.append("scores or gains are all equal: no rank correlation.")
        if seeds == 1:
            notes.append("one seed: gains are of a single training, and mostly chance.")
    without, explained = fmean(r.without for r in rows), fmean(r.explained for r in rows)
    return RationaleScores(
        examples=len(rows),
        seeds=seeds,
        without=without,
        explained=explained,
        rationale_only=fmean(row.leaks for row in rows),
        rq=explained - without,
        gain_leaking=leaking,
        gain_other=other,
        las=las,
        information=fmean(row.information for row in rows),
        rev=fmean(row.rev for row in rows),
        room=room,
        relations=relations,
        notes=tuple(notes),
    )


def relation(name: str, scores: Sequence[float], gains: Sequence[float]) -> Relation:
    """Relate gains to scores, example by example.

    Each example with a tied score counts with the mean gain of all examples of that score, so that
    the thirds do not depend on the order of the examples.
    """
    if len(scores) < 3:
        return Relation(name, (), None, None)
    import numpy as np
    from scipy import stats

    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ordered = np.repeat(np.bincount(places, weights=gains) / counts, counts)
    thirds = tuple(float(part.mean()) for part in np.array_split(ordered, 3))
    if len(set(scores)) == 1 or len(set(gains)) == 1:
        return Relation(name, thirds, None, None)
    found = stats.spearmanr(scores, gains)
    return Relation(name, thirds, float(found.statistic), float(found.pvalue))
