"""The nearest rows of one matrix to those of another, without most of the products.

Rows are unit vectors without negative numbers. Columns are in levels, from those of few rows to
those of many. The head of a row is its columns in the lowest levels, as few as leave a tail with a
norm below the least cosine that counts. Two rows as near as that have a column of both heads in
common: else their product would be at most the norm of the shorter head's tail. And it is at most
the product of both rows up to the shorter head's end, and of the norms of what comes after it. So
pairs are found by the products of heads, and most of them left out by that bound.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# A block has at most so many rows, and as few that it has at most so many products.
_BLOCK, _PRODUCTS = 512, 1 << 24
_LEVELS = 32
# Products are sums of numbers of 32 bits: a bound leaves out only what is below by more than this.
_MARGIN = 1e-3
# So many pairs of rows are compared at a time.
_PAIRS = 50_000
# Of more than this share of the pairs, all products at once take less time.
_MANY = 0.03


class Nearest:
    """Finds the rows of a matrix that are nearest to others."""

    def __init__(self, train: Any, least: float) -> None:
        """Prepare the search for products of at least `least`, which is above 0, with the rows of
        `train`: a CSR matrix of 32-bit numbers whose rows have the norm 1, or 0."""
        self._train, self._least, self._levels = train, least, _levels(train)
        self._heads = _Heads(train, self._levels, least)
        self._by_column = self._heads.matrix.T.tocsr()

    def find(self, asked: Any, done: Callable[[int], None] = lambda _: None) -> tuple[Array, Array]:
        """Return for each row of `asked`, a matrix of the same kind, its greatest product with a
        row of train, and that row, the first of equal ones; 0 and row 0 if it is below `least`.

        The cores search a block each at a time; `done` is called with its number of rows.
        """
        best, found = np.zeros(asked.shape[0]), np.zeros(asked.shape[0], dtype=np.int64)
        step = max(1, min(_BLOCK, _PRODUCTS // max(self._train.shape[0], 1)))
        starts = range(0, asked.shape[0], step)
        blocks = [asked[start : start + step] for start in starts]
        # Products of sparse matrices let other threads work.
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for start, (most, rows) in zip(starts, threads.map(self._search, blocks), strict=True):
                best[start : start + len(most)] = most
                found[start : start + len(rows)] = rows
                done(len(most))
        return best, found

    def _search(self, asked: Any) -> tuple[Array, Array]:
        train, least = self._train, self._least
        heads = _Heads(asked, self._levels, least)
        rows, others = _alike(heads, self._heads, self._by_column, least)
        if len(rows) < _MANY * asked.shape[0] * train.shape[0]:
            rows, others = _near(asked, train, rows, others, least)
        return _best(asked, train, others, least)


def _levels(train: Any) -> Array:
    """Return the level of each column, so that all have about the same share of the squares."""
    counts = np.bincount(train.indices, minlength=train.shape[1])
    order = np.argsort(counts, kind="stable")
    squares = np.bincount(train.indices, weights=_squares(train), minlength=train.shape[1])[order]
    before = np.cumsum(squares) - squares
    levels = np.empty(train.shape[1], dtype=np.int64)
    levels[order] = before / max(squares.sum(), 1) * _LEVELS
    return np.minimum(levels, _LEVELS - 1)


class _Heads:
    """The heads of rows.

    Attributes:
        matrix: the rows with their heads alone.
        ends: the level at which each row's tail begins.
        tails: the norm of each row from each level on.
    """

    def __init__(self, rows: Any, levels: Array, least: float) -> None:
        from scipy.sparse import csr_matrix

        number = rows.shape[0]
        of_entry = np.repeat(np.arange(number), np.diff(rows.indptr))
        level = levels[rows.indices]
        places = of_entry * _LEVELS + level
        squares = np.bincount(places, weights=_squares(rows), minlength=number * _LEVELS)
        squares = squares.reshape(number, _LEVELS)
        self.tails = np.zeros((number, _LEVELS + 1), dtype=np.float32)
        self.tails[:, :-1] = np.sqrt(squares[:, ::-1].cumsum(axis=1)[:, ::-1])
        self.ends = (self.tails >= least - _MARGIN).sum(axis=1)
        kept = level < self.ends[of_entry]
        starts = np.concatenate([[0], np.cumsum(kept)])[rows.indptr]
        self.matrix = csr_matrix((rows.data[kept], rows.indices[kept], starts), shape=rows.shape)


def _alike(asked: _Heads, train: _Heads, by_column: Any, least: float) -> tuple[Array, Array]:
    """Return the pairs of rows whose product may be as great as `least`, by their heads."""
    pairs = (asked.matrix @ by_column).tocoo()
    ends = np.minimum(asked.ends[pairs.row], train.ends[pairs.col])
    most = pairs.data + asked.tails[pairs.row, ends] * train.tails[pairs.col, ends]
    kept = most >= least - _MARGIN
    return pairs.row[kept], pairs.col[kept]


def _near(asked: Any, train: Any, rows: Array, others: Array, least: float) -> tuple[Array, Array]:
    """Return the pairs whose product may be as great as `least`, and as any other of its row."""
    products = np.zeros(len(rows))
    for start in range(0, len(rows), _PAIRS):
        some = slice(start, start + _PAIRS)
        both = asked[rows[some]].multiply(train[others[some]])
        products[some] = np.asarray(both.sum(axis=1)).ravel()
    greatest = np.full(asked.shape[0], least)
    np.maximum.at(greatest, rows, products)
    kept = products >= greatest[rows] - _MARGIN
    return rows[kept], others[kept]


def _best(asked: Any, train: Any, others: Array, least: float) -> tuple[Array, Array]:
    """Return the greatest product of each row with some rows of train, and which of these it is."""
    best, found = np.zeros(asked.shape[0]), np.zeros(asked.shape[0], dtype=np.int64)
    if len(others):
        chosen = np.unique(others)
        # As in a product with all of train, numbers are added in the order of the row's columns, so
        # that equal rows have equal products.
        products = asked @ train[chosen].T.tocsr()
        best = products.max(axis=1).toarray().ravel().astype(np.float64)
        found = chosen[np.asarray(products.argmax(axis=1)).ravel()]
        found[best < least] = 0
        best[best < least] = 0
    return best, found


def _squares(rows: Any) -> Array:
    squares: Array = rows.data.astype(np.float64) ** 2
    return squares
