"""Finds the most similar training example by BM25 (Robertson et al. 1994) over task inputs."""

from collections.abc import Sequence

from knife.data.example import Example
from knife.data.tokens import task_input_text


class Similar:
    """Finds the training example that is most similar to another one."""

    def __init__(self, training: Sequence[Example]) -> None:
        # Imports scipy, which takes a second, and most methods retrieve nothing.
        import bm25s

        self._training = list(training)
        self._rows = {_identity(example): row for row, example in enumerate(self._training)}
        self._index = bm25s.BM25(backend="numpy")
        self._index.index(_words(self._training), show_progress=False)

    def of(self, examples: Sequence[Example]) -> list[Example | None]:
        """Return the most similar other training example for each; None if there is no other.

        Of equally similar ones, it is the first in the order of `training`.
        """
        found: list[Example | None] = []
        for example, words in zip(examples, _words(examples), strict=True):
            scores = self._index.get_scores(words)
            own = self._rows.get(_identity(example))
            if own is not None:
                scores[own] = -1.0
            best = int(scores.argmax())
            found.append(self._training[best] if best != own else None)
        return found


def _identity(example: Example) -> tuple[str, str]:
    """Return id and question, since another data set may have the same ids."""
    return example.id, example.question


def _words(examples: Sequence[Example]) -> list[list[str]]:
    import bm25s

    texts = [task_input_text(example)[0] for example in examples]
    words: list[list[str]] = bm25s.tokenize(
        texts, stopwords=None, show_progress=False, return_ids=False
    )
    return words
