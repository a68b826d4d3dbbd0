"""What the rationales of train state: how many of them say the same as another sentence."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from knife.data.example import Example
from knife.forecast.asked import Asked
from knife.forecast.facts import Fact, facts, stated

Array = np.ndarray[Any, Any]

# Two sentences say the same if the cosine of their weighted words is at least this.
SAME = 0.7
# The products of so many pairs of sentences are in memory at a time.
_PRODUCTS = 1 << 22


class TrainFacts:
    """The facts that the rationales of train state.

    A word weighs log((facts + 1) / facts with the word): one that all facts have weighs next to
    nothing, and one that none has as much as one that a single fact has.

    Attributes:
        number: how many facts there are, repeated ones included.
    """

    def __init__(self, train: Sequence[Example]) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        owners: list[int] = []
        found = stated(train, owners)
        first = next(found, None)
        self.number = 0
        if first is None:
            return
        self._vectorizer = CountVectorizer(analyzer=list, binary=True, dtype=np.float32)
        words = self._vectorizer.fit_transform(chain([first], found))
        self.number, width = words.shape
        often = np.bincount(words.indices, minlength=width)
        self._weights = np.log((self.number + 1) / often).astype(np.float32)
        self._by_word = _unit(self._weighted(words)).T.tocsr()
        self._owners = np.array(owners)

    def words(self, texts: Sequence[Fact]) -> Any:
        """Return which words each text has, of those that train has: a sparse matrix of 0 and the
        words' weights."""
        return self._weighted(self._vectorizer.transform(texts))

    def weight(self, word: str) -> float:
        """Return what a word weighs."""
        place = self._vectorizer.vocabulary_.get(word) if self.number else None
        return math.log(self.number + 1) if place is None else float(self._weights[place])

    def mentions(self, asked: Sequence[Asked]) -> list[Array]:
        """Return how many examples of train state each fact of each rationale."""
        parts = [facts(each.example.rationale or "") for each in asked]
        sizes = list(map(len, parts))
        counts = np.zeros(sum(sizes), dtype=np.int64)
        if self.number and len(counts):
            places = np.repeat([each.place for each in asked], sizes)
            rows = self._unit(list(chain.from_iterable(parts)))
            step = max(1, _PRODUCTS // self.number)
            for start in range(0, len(counts), step):
                block = slice(start, start + step)
                counts[block] = self._count(rows[block], places[block])
        return np.split(counts, np.cumsum(sizes)[:-1]) if sizes else []

    def _count(self, rows: Any, places: Array) -> Array:
        """Return how many examples state each fact, but for the fact's own."""
        products = (rows @ self._by_word).tocoo()
        same = products.data >= SAME
        asking, owners = products.row[same], self._owners[products.col[same]]
        others = owners != places[asking]
        pairs = np.unique(np.stack([asking[others], owners[others]]), axis=1)
        return np.bincount(pairs[0], minlength=rows.shape[0])

    def _weighted(self, words: Any) -> Any:
        weighted = words.copy()
        weighted.data *= self._weights[weighted.indices]
        return weighted

    def _unit(self, texts: Sequence[Fact]) -> Any:
        """Return the words of texts as rows of the norm 1, or less if train lacks some of them."""
        words = self._vectorizer.transform(texts)
        lacking = np.array([len(set(text)) for text in texts]) - np.diff(words.indptr)
        return _unit(self._weighted(words), lacking * math.log(self.number + 1) ** 2)


def _unit(rows: Any, more: Array | float = 0.0) -> Any:
    """Divide rows by their norms, to whose squares `more` is added; rows of zeros stay zeros."""
    squares = np.asarray(rows.multiply(rows).sum(axis=1)).ravel() + more
    found = rows.copy()
    found.data /= np.repeat(np.sqrt(squares), np.diff(rows.indptr)).astype(np.float32) + 1e-12
    return found
