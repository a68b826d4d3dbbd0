"""The search without most of the products finds what all products show, to the last bit."""

import random
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

import knife.data.nearest
from knife.data.nearest import Nearest

WORDS = ("dog", "cat", "owl", "runs", "sleeps", "eats", "on", "near", "tree", "old", "red", "blue")


def texts(number: int, seed: int) -> list[str]:
    """Return texts of frequent words, of which some are changed copies of others and some equal,
    with numbers, which are rare."""
    draw = random.Random(seed)
    found: list[str] = []
    for _ in range(number):
        words = [*draw.choices(WORDS, k=draw.randrange(1, 12)), str(draw.randrange(3000))]
        if found and draw.random() < 0.4:
            words = draw.choice(found).split()
            words[draw.randrange(len(words))] = draw.choice(WORDS)
        found.append(" ".join(words))
    return found


def rows(seed: int) -> tuple[Any, Any]:
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 4), dtype=np.float32)
    known = texts(600, seed)
    # Some have the words of one of those in another order.
    asked = [" ".join(sorted(text.split())) for text in known[:30]] + texts(120, seed + 100)
    train = vectorizer.fit_transform([*known, ""])
    return vectorizer.transform(["", *asked]), train


def by_all_products(asked: Any, train: Any, least: float) -> tuple[list[float], list[int]]:
    products = (asked @ train.T.tocsr()).toarray()
    best, places = products.max(axis=1), products.argmax(axis=1)
    return np.where(best >= least, best, 0).tolist(), np.where(best >= least, places, 0).tolist()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("least", [0.3, 0.6, 0.8, 0.95])
def test_the_nearest_rows_are_those_of_all_products(seed: int, least: float) -> None:
    asked, train = rows(seed)
    best, places = Nearest(train, least).find(asked)
    assert (best.tolist(), places.tolist()) == by_all_products(asked, train, least)
    assert best.any()
    assert best[0] == 0, "a text without a word is near nothing"


@pytest.mark.parametrize(("name", "value"), [("_MANY", 0), ("_MANY", 1), ("_PRODUCTS", 1 << 12)])
def test_whichever_way_blocks_are_searched(
    name: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All products of a block at once, each pair on its own, and blocks of few rows."""
    asked, train = rows(7)
    monkeypatch.setattr(knife.data.nearest, name, value)
    done: list[int] = []
    best, places = Nearest(train, 0.8).find(asked, done.append)
    assert (best.tolist(), places.tolist()) == by_all_products(asked, train, 0.8)
    assert sum(done) == asked.shape[0]
    assert len(done) == (1 if name == "_MANY" else 26)


def test_most_pairs_are_left_out_by_their_heads() -> None:
    asked, train = rows(3)
    search = Nearest(train, 0.8)
    heads = knife.data.nearest._Heads(asked, search._levels, 0.8)
    pairs, _ = knife.data.nearest._alike(heads, search._heads, search._by_column, 0.8)
    assert len(pairs) < 0.05 * asked.shape[0] * train.shape[0]


def test_of_equal_rows_the_first_is_found() -> None:
    row = np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32)
    train = csr_matrix(np.vstack([row[1:], row[:1], row[:1]]))
    best, places = Nearest(train, 0.8).find(csr_matrix(row))
    assert places.tolist() == [1, 0]
    assert best.tolist() == pytest.approx([1, 1])
