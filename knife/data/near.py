"""Finds questions that are nearly the same in two splits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from knife.data.example import Example
from knife.data.nearest import Nearest
from knife.data.normal import bare_words

THRESHOLD = 0.8


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
    train: Sequence[Example],
    others: Mapping[str, Sequence[Example]],
    threshold: float = THRESHOLD,
    done: Callable[[int], None] = lambda _: None,
) -> dict[str, NearDuplicates]:
    """Find which examples of other splits are in `train` in nearly the same words.

    A near-duplicate has a cosine of at least `threshold` between TF-IDF vectors of question and
    choices, over 4-grams of characters within words. Questions with the same words, ignoring case,
    punctuation and order of choices, do not count: they are repeated questions. `done` is called
    with the numbers of examples of the others as they are compared.
    """
    texts = list(map(_text, train))
    known = set(texts)
    found = dict.fromkeys(others, NearDuplicates(threshold, 0, 0.0, (), ()))
    asked: dict[str, tuple[list[Example], list[str]]] = {}
    for name, part in others.items():
        pairs = [(e, text) for e in part if (text := _text(e)) and text not in known]
        done(len(part) - len(pairs))
        if pairs and any(known):
            asked[name] = [example for example, _ in pairs], [text for _, text in pairs]
    if not asked:
        return found
    # Takes a second to import.
    from sklearn.feature_extraction.text import TfidfTransformer

    grams = _Grams(texts)
    weights = TfidfTransformer()
    search = Nearest(weights.fit_transform(grams.of_train), threshold)
    for name, (examples, own) in asked.items():
        best, places = search.find(weights.transform(grams.count(own)), done)
        found[name] = _report(train, examples, best, places, threshold)
    return found


class _Grams:
    """Counts of 4-grams of characters within words.

    Those of a text are the sum of its words': each word is looked at only once, in whatever number
    of texts it is, which is several times as fast.
    """

    def __init__(self, train: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import CountVectorizer

        self._grams = CountVectorizer(analyzer="char_wb", ngram_range=(4, 4), dtype=np.float32)
        words, counts = _words(train)
        self.of_train = counts @ self._grams.fit_transform(words)

    def count(self, texts: Sequence[str]) -> Any:
        """Return the counts of those 4-grams of texts that train has too."""
        words, counts = _words(texts)
        return counts @ self._grams.transform(words)


def _words(texts: Sequence[str]) -> tuple[list[str], Any]:
    """Return the words of texts in order, and how often each text has each of them."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from scipy.sparse import csr_matrix

    # A text without words is one empty word.
    split = pc.split_pattern(pa.array(texts, pa.large_string()), " ")
    coded = split.flatten().dictionary_encode()
    found = coded.dictionary.to_pylist()
    words = sorted(word for word in found if word)
    places = {word: place for place, word in enumerate(words)}
    codes = coded.indices.to_numpy()
    kept = np.array([bool(word) for word in found])[codes]
    starts = np.concatenate([[0], np.cumsum(kept)])[split.offsets.to_numpy()]
    ones = np.ones(kept.sum(), dtype=np.float32)
    counts = csr_matrix((ones, codes[kept], starts), shape=(len(texts), len(found)))
    # A text's words stay in the order in which they are first seen: numbers are added in it.
    counts.sum_duplicates()
    ordered = np.array([places.get(word, 0) for word in found], dtype=np.int32)[counts.indices]
    shape = (len(texts), len(words))
    counts = csr_matrix((counts.data, ordered, counts.indptr), shape=shape)
    return words, counts


def _report(
    train: Sequence[Example],
    asked: Sequence[Example],
    best: "np.ndarray[Any, Any]",
    places: "np.ndarray[Any, Any]",
    threshold: float,
) -> NearDuplicates:
    near = best >= threshold
    if not near.any():
        return NearDuplicates(threshold, 0, 0.0, (), ())
    first = int(best.argmax())
    pair = asked[first], train[int(places[first])]
    return NearDuplicates(
        threshold,
        int(near.sum()),
        float(best[first]),
        tuple(example.id for example in pair),
        tuple(example.question for example in pair),
    )


def _text(example: Example) -> str:
    """Return question and choices in lower case without punctuation, and without an open answer."""
    choices = () if example.open else _choices_text(example.choices)
    return " ".join([bare_words(example.question), *choices])


# Many examples share their choices.
@lru_cache(4096)
def _choices_text(choices: tuple[str, ...]) -> list[str]:
    return sorted(map(bare_words, choices))
