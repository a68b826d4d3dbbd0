"""Questions that are nearly the same in two splits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from knife.data.example import Example

THRESHOLD = 0.8
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """The questions of a split that have a near-duplicate in train.

    Attributes:
        threshold: the cosine from which on a question counts as one.
        count: how many questions do.
        similarity: cosine of the nearest pair; 0 where none is near.
        ids, questions: that pair, of the split and of train; empty where none is near.
    """

    threshold: float
    count: int
    similarity: float
    ids: tuple[str, ...]
    questions: tuple[str, ...]


def near_duplicates(
    train: Sequence[Example], others: Sequence[Example], threshold: float = THRESHOLD
) -> NearDuplicates:
    """Which of `others` stand in `train` in nearly the same words.

    Near is a cosine of at least `threshold` between the TF-IDF vectors, over four letters in a row
    within words, of question and choices. The same words are no near-duplicate but a repeated
    question, whatever case, marks and order of the choices.
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
        # A block at a time: all products together would be as many as train times split.
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
    """Question and choices in small letters without marks; an open answer is no part of it."""
    choices = [] if example.open else sorted(map(_bare, example.choices))
    return " ".join([_bare(example.question), *choices])


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
