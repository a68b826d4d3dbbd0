"""How well a cheap word-based classifier can predict the answer from the rationale alone."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from knife.data.example import Example
from knife.data.normal import bare_words
from knife.data.subset import share_choices

FOLDS = 5


@dataclass(frozen=True, slots=True)
class RationaleOnly:
    """The accuracy of a model that sees rationales and choices, but not the question.

    Attributes:
        accuracy: cross-validated, from 0 to 1; a tie of k choices counts 1/k.
        chance: accuracy of guessing without the rationale: the share of the most frequent answer
            if all examples share one set of choices, or else the mean of 1 / choices.
        examples: number of examples that have a rationale with words.
    """

    accuracy: float
    chance: float
    examples: int


def rationale_only(examples: Sequence[Example]) -> RationaleOnly | None:
    """Cross-validate a logistic regression on rationales alone, with five folds.

    If all examples share one set of choices, its features are the words and word pairs of the
    rationale (TF-IDF), and it predicts the answer's text. Otherwise it scores how much of each
    choice the rationale contains, and predicts the choice with the highest score.

    Returns None if the answers are open, or if some answer has fewer than five rationales.
    """
    explained = [example for example in examples if _words(example.rationale)]
    if len(explained) < FOLDS or explained[0].open:
        return None
    return _shared_choices(explained) if share_choices(examples) else _own_choices(explained)


def _shared_choices(examples: list[Example]) -> RationaleOnly | None:
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    answers = np.array([example.choices[example.answer] for example in examples])
    _, numbers = np.unique(answers, return_counts=True)
    if len(numbers) < 2 or numbers.min() < FOLDS:
        return None
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", dtype=np.float64)
    # Words are counted once for all folds.
    counts = words.fit_transform([_words(example.rationale) for example in examples])
    found = np.empty_like(answers)
    for learned, held in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(
        counts, answers
    ):
        of_learned = counts[learned]
        known = np.unique(of_learned.indices)
        weights = TfidfTransformer(sublinear_tf=True)
        model = LogisticRegression(solver="newton-cg")
        model.fit(weights.fit_transform(of_learned[:, known]), answers[learned])
        found[held] = model.predict(weights.transform(counts[held][:, known]))
    right = float((found == answers).mean())
    return RationaleOnly(right, float(numbers.max() / len(answers)), len(examples))


def telling_words(examples: Sequence[Example], without: Container[str] = ()) -> list[str]:
    """Return the words of rationales that tell the answer in a regression on words, where all
    examples share one set of choices: by how much their weights, times TF-IDF, differ between
    answers, summed over rationales. The last one tells half as much as the first."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    answers = [example.choices[example.answer] for example in examples]
    words = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True)
    values = words.fit_transform([_words(example.rationale) for example in examples])
    weights = LogisticRegression(solver="newton-cg").fit(values, answers).coef_
    said = np.ptp(np.vstack([weights, -weights] if len(weights) == 1 else weights), axis=0)
    said = said * np.asarray(values.sum(axis=0)).ravel()
    names = words.get_feature_names_out()
    said[[name in without for name in names]] = 0
    order = np.lexsort((names, -said.round(9)))
    return [
        str(names[index]) for index in order if said[index] > 0 and 2 * said[index] >= said.max()
    ]


def _own_choices(examples: list[Example]) -> RationaleOnly:
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    numbers = [len(example.choices) for example in examples]
    groups = np.repeat(np.arange(len(examples)), numbers)
    right = np.concatenate([np.arange(len(e.choices)) == e.answer for e in examples])
    weights = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        overlaps(examples, groups),
        right,
        groups=groups,
        cv=GroupKFold(FOLDS, shuffle=True, random_state=0),
        method="decision_function",
    )
    starts = np.cumsum([0, *numbers[:-1]])
    best = np.maximum.reduceat(weights, starts)[groups]
    tied = np.isclose(weights, best)
    shares = np.add.reduceat(tied & right, starts) / np.add.reduceat(tied, starts, dtype=int)
    chance = float(np.mean(1 / np.array(numbers)))
    return RationaleOnly(float(shares.mean()), chance, len(examples))


def overlaps(examples: list[Example], groups: Any) -> Any:
    """Return for every choice of every example how much of it the rationale contains: cosine of
    TF-IDF over words and over word prefixes, share of its words, and whether all of it occurs in
    sequence; each also relative to the best of the example's choices."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    rationales = [_words(example.rationale) for example in examples]
    choices = [_words(choice) for example in examples for choice in example.choices]
    columns = []
    for pattern in (r"\w+", r"\b\w{1,4}"):
        vectorizer = TfidfVectorizer(token_pattern=pattern).fit(rationales + choices)
        of_rationales = vectorizer.transform(rationales)[groups]
        of_choices = vectorizer.transform(choices)
        columns.append(np.asarray(of_rationales.multiply(of_choices).sum(axis=1)).ravel())
    said = [(choice.split(), rationales[row]) for choice, row in zip(choices, groups, strict=True)]
    known = [set(rationale.split()) for rationale in rationales]
    columns.append(
        np.array(
            [
                sum(word in known[row] for word in words) / max(len(words), 1)
                for (words, _), row in zip(said, groups, strict=True)
            ]
        )
    )
    columns.append(np.array([f" {' '.join(w)} " in f" {rationale} " for w, rationale in said]))
    values = np.column_stack(columns).astype(float)
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    best = np.maximum.reduceat(values, starts)[groups]
    return np.hstack([values, values - best])


def _words(text: str | None) -> str:
    return bare_words(text or "")
