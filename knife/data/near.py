"""Finds questions that are nearly the same in two splits."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    train: Sequence[Example], others: Sequence[Example], threshold: float = THRESHOLD
) -> NearDuplicates:
    """Find which of `others` are in `train` in nearly the same words.

    A near-duplicate has a cosine of at least `threshold` between TF-IDF vectors of question and
    choices, over 4-grams of characters within words. Questions with the same words, ignoring case,
    punctuation and order of choices, do not count: they are repeated questions.
    """
    known = {_text(example) for example in train}
    asked = [example for example in others if _text(example) not in known]
    if not any(known) or not asked:
        return NearDuplicates(threshold, 0, 0.0, (), ())
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 4), dtype=np.float32)
    of_train = vectorizer.fit_transform(map(_text, train)).T.tocsr()
    of_asked = vectorizer.transform(map(_text, asked))
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
    pair = asked[first], train[nearest[first]]
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
