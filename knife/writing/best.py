"""How much a rationale helps a cheap classifier, which is trained on other questions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from knife.data.example import Example
from knife.data.leaks import FOLDS, overlaps
from knife.data.normal import bare_words
from knife.data.subset import share_choices


def gains(examples: Sequence[Example]) -> list[float]:
    """Return, for each example, the log-probability of its right answer by question and rationale
    minus that by the question alone, in nats.

    An example stands for each rationale of a question: all of one question, by its id, are in the
    same of five folds, and classified by what the other four teach. If all examples share one set
    of choices, the classifiers are logistic regressions on words and word pairs (TF-IDF); else on
    how much of each choice the text contains. All are 0 where there is too little to learn from.
    """
    ids = [example.id for example in examples]
    if len(set(ids)) < FOLDS or examples[0].open:
        return [0.0] * len(examples)
    _, groups = np.unique(ids, return_inverse=True)
    score = _of_shared if share_choices(examples) else _of_own
    bare = [replace(example, rationale="") for example in examples]
    found = score(list(examples), groups) - score(bare, groups)
    return [float(gain) for gain in found]


def _of_shared(examples: list[Example], groups: Any) -> Any:
    """Return the log-probability of each right answer by the words of question and rationale."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold

    texts = np.array([bare_words(f"{e.question} {e.rationale}") for e in examples], dtype=object)
    answers = np.array([e.choices[e.answer] for e in examples])
    found = np.zeros(len(examples))
    for learned, held in GroupKFold(FOLDS, shuffle=True, random_state=0).split(
        texts, groups=groups
    ):
        if len(set(answers[learned])) < 2:
            continue
        words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", sublinear_tf=True)
        model = LogisticRegression(solver="newton-cg")
        model.fit(words.fit_transform(texts[learned]), answers[learned])
        known = {name: column for column, name in enumerate(model.classes_)}
        logs = model.predict_log_proba(words.transform(texts[held]))
        # An answer that the others do not have is equally unlikely with and without rationale.
        found[held] = [
            row[known[answer]] if answer in known else 0.0
            for row, answer in zip(logs, answers[held], strict=True)
        ]
    return found


def _of_own(examples: list[Example], groups: Any) -> Any:
    """Return the log-probability of each right answer among its example's own choices, by how much
    of each choice question and rationale contain."""
    from scipy.special import logsumexp
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    numbers = [len(example.choices) for example in examples]
    rows = np.repeat(np.arange(len(examples)), numbers)
    asked = [replace(example, rationale=example.question) for example in examples]
    right = np.concatenate([np.arange(len(e.choices)) == e.answer for e in examples])
    weights = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        np.hstack([overlaps(asked, rows), overlaps(examples, rows)]),
        right,
        groups=groups[rows],
        cv=GroupKFold(FOLDS, shuffle=True, random_state=0),
        method="decision_function",
    )
    ends = np.cumsum(numbers)[:-1]
    return np.array(
        [
            own[example.answer] - logsumexp(own)
            for own, example in zip(np.split(weights, ends), examples, strict=True)
        ]
    )
