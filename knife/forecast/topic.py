"""Whether rationales are about their questions, and whether they say more than these."""

from collections.abc import Sequence

import numpy as np

from knife.forecast.asked import Asked
from knife.forecast.facts import content_words, facts
from knife.forecast.memory import Memory

# A question that has so much of a fact's weight has told it already.
_TOLD = 0.7


def fit(asked: Sequence[Asked], memory: Memory) -> float:
    """Return how much better rationales fit their own questions than others', from 0 to 1.

    A rationale fits a question by the weight of their common words. 1: each question is fitted
    best by its own rationale; 0: as well by any other (ties count half).
    """
    if len(asked) < 2 or not memory.number:
        return 0.0
    rationales = memory.words([_words(each) for each in asked])
    # Weights must not be multiplied with themselves.
    questions = memory.words([content_words(each.example.question) for each in asked]).sign()
    common = (questions @ rationales.T).toarray()
    own = common.diagonal()[:, None]
    better = (common < own - 1e-4).sum(axis=1)
    # Its own is not compared with itself.
    equal = (np.abs(common - own) <= 1e-4).sum(axis=1) - 1
    share = float(np.mean((better + equal / 2) / (len(asked) - 1)))
    return max(0.0, 2 * share - 1)


def told(asked: Sequence[Asked], memory: Memory) -> float:
    """Return the share of facts that the question has told already: at least 70 % of their words,
    by weight."""
    parts = [facts(each.example.rationale or "") for each in asked]
    if not memory.number or not any(parts):
        return 0.0
    stated = memory.words([fact for some in parts for fact in some])
    sizes = [len(some) for some in parts]
    questions = memory.words([content_words(each.example.question) for each in asked]).sign()
    whole = np.asarray(stated.sum(axis=1)).ravel()
    rows = np.repeat(np.arange(len(asked)), sizes)
    common = np.asarray(stated.multiply(questions[rows]).sum(axis=1)).ravel()
    return float(np.mean(common >= _TOLD * np.maximum(whole, 1e-9)))


def _words(asked: Asked) -> tuple[str, ...]:
    return tuple(word for fact in facts(asked.example.rationale or "") for word in fact)
