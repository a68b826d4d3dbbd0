"""Whether rationales are about their questions, and whether they say more than these."""

from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np

from knife.data.example import Example
from knife.forecast.asked import Asked
from knife.forecast.facts import content_words, facts
from knife.forecast.train_facts import TrainFacts

# A question that has so much of a fact tells it as well.
_TOLD = 0.5


def fit(asked: Sequence[Asked]) -> float:
    """Return how much better rationales fit their own questions than others', from 0 to 1.

    A rationale fits a question by the weight of their common words. 1: each question is fitted
    best by its own rationale; 0: as well by any other (ties count half).
    """
    known = TrainFacts([each.example for each in asked])
    if len(asked) < 2 or not known.number:
        return 0.0
    rationales = known.words([_words(each) for each in asked])
    # Weights must not be multiplied with themselves.
    questions = known.words([content_words(each.example.question) for each in asked]).sign()
    common = (questions @ rationales.T).toarray()
    own = common.diagonal()[:, None]
    better = (common < own - 1e-4).sum(axis=1)
    # Its own is not compared with itself.
    equal = (np.abs(common - own) <= 1e-4).sum(axis=1) - 1
    share = float(np.mean((better + equal / 2) / (len(asked) - 1)))
    return max(0.0, 2 * share - 1)


def told(asked: Sequence[Asked], known: TrainFacts) -> float:
    """Return the share of facts that the question tells as well: apart from a fact's heaviest word,
    which is mostly what it is about, at least half of the others by weight."""
    found = []
    for each in asked:
        asks = set(content_words(each.example.question))
        for fact in facts(each.example.rationale or ""):
            weights = {word: known.weight(word) for word in fact}
            del weights[max(weights, key=weights.__getitem__)]
            common = sum(weight for word, weight in weights.items() if word in asks)
            found.append(common >= _TOLD * sum(weights.values()) > 0)
    return fmean(found) if found else 0.0


def familiar(train: Iterable[Example], dev: Sequence[Example], test: Sequence[Example]) -> float:
    """Return how many questions of test have no word that train lacks, in relation to those of dev:
    at most 1, and 1 if dev has none either, or one of them is empty."""
    if not (dev and test):
        return 1.0
    words: set[str] = set()
    for example in train:
        for text in (example.question, *example.rationales):
            words.update(content_words(text))
    of_dev, of_test = (
        sum(words.issuperset(content_words(example.question)) for example in part) / len(part)
        for part in (dev, test)
    )
    return min(1.0, of_test / of_dev) if of_dev else 1.0


def _words(asked: Asked) -> tuple[str, ...]:
    return tuple(word for fact in facts(asked.example.rationale or "") for word in fact)
