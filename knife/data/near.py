"""Finds questions that are nearly the same in two splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from knife.data.example import Example
from knife.data.normal import bare_words

THRESHOLD = 0.8
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """The questions of a split that have a near-duplicate in train.

    Attributes:
        threshold: the lowest cosine that counts as a near-duplicate.
        count: number of such questions.
        similarity: cosine of the nearest pair; 0 if there is none.
        ids, questions: that pair, of the split and of train; empty if there is none.
    """

    threshold: float
    count: int
    similarity: float
    ids: tuple[str, ...]
    questions: tuple[str, ...]


def near_duplicates(
    train: Sequence[Example], others: Mapping[str, Sequence[Example]], threshold: float = THRESHOLD
) -> dict[str, NearDuplicates]:
    """Find which examples of other splits are in `train` in nearly the same words.

    A near-duplicate has a cosine of at least `threshold` between TF-IDF vectors of question and
    choices, over 4-grams of characters within words. Questions with the same words, ignoring case,
    punctuation and order of choices, do not count: they are repeated questions.
    """
    texts = list(map(_text, train))
    known = set(texts)
    asked = {
        name: [example for example in part if (text := _text(example)) and text not in known]
        for name, part in others.items()
    }
    found = dict.fromkeys(others, NearDuplicates(threshold, 0, 0.0, (), ()))
    if not any(known) or not any(asked.values()):
        return found
    # Takes a second to import.
    from sklearn.feature_extraction.text import TfidfTransformer

    grams = _Grams(texts)
    weights = TfidfTransformer()
    of_train = weights.fit_transform(grams.of_train).T.tocsr()
    for name, examples in asked.items():
        if examples:
            of_asked = weights.transform(grams.count(list(map(_text, examples))))
            found[name] = _nearest(train, examples, of_train, of_asked, threshold)
    return found


class _Grams:
    """Counts of 4-grams of characters within words.

    Those of a text are the sum of its words': each word is looked at only once, in whatever number
    of texts it is, which is several times as fast.
    """

    def __init__(self, train: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        self._words = CountVectorizer(analyzer=str.split, dtype=np.float32)
        self._grams = CountVectorizer(analyzer="char_wb", ngram_range=(4, 4), dtype=np.float32)
        counts = self._words.fit_transform(train)
        self.of_train = counts @ self._grams.fit_transform(self._words.get_feature_names_out())

    def count(self, texts: Sequence[str]) -> Any:
        """Return the counts of those 4-grams of texts that train has too."""
        counts = self._words.fit_transform(texts)
        return counts @ self._grams.transform(self._words.get_feature_names_out())


def _nearest(
    train: Sequence[Example],
    asked: Sequence[Example],
    of_train: Any,
    of_asked: Any,
    threshold: float,
) -> NearDuplicates:
    best, nearest = np.zeros(len(asked)), np.zeros(len(asked), dtype=int)
    for start in range(0, len(asked), _BLOCK):
        # A block at a time: all products together would have the size of train times split.
        products = of_asked[start : start + _BLOCK] @ of_train
        rows = slice(start, start + products.shape[0])
        nearest[rows] = np.asarray(products.argmax(axis=1)).ravel()
        best[rows] = products.max(axis=1).toarray().ravel()
    near = best >= threshold
    if not near.any():
        return NearDuplicates(threshold, 0, 0.0, (), ())
    first = int(best.argmax())
    pair = asked[first], train[int(nearest[first])]
    return NearDuplicates(
        threshold,
        int(near.sum()),
        float(best[first]),
        tuple(example.id for example in pair),
        tuple(example.question for example in pair),
    )


def _text(example: Example) -> str:
    """Return question and choices in lower case without punctuation, and without an open answer."""
    choices = [] if example.open else sorted(map(bare_words, example.choices))
    return " ".join([bare_words(example.question), *choices])
