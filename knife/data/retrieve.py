"""The most similar training example, by BM25 (Robertson et al. 1994) over the task inputs."""

from collections.abc import Sequence

from knife.data.example import Example
from knife.data.tokens import task_input_text


class Similar:
    """Finds the training example that is most similar to another one."""

    def __init__(self, training: Sequence[Example]) -> None:
        # Imports scipy, which takes a second, and most methods look for nothing.
        import bm25s

        self._training = list(training)
        self._index = bm25s.BM25(backend="numpy")
        self._index.index(_words(self._training), show_progress=False)

    def of(self, examples: Sequence[Example]) -> list[Example | None]:
        """The most similar training example of each, never itself; None where there is no other."""
        most = min(2, len(self._training))
        found = self._index.retrieve(_words(examples), k=most, show_progress=False).documents
        return [
            next((other for row in rows if not _same(other := self._training[row], example)), None)
            for example, rows in zip(examples, found.tolist(), strict=True)
        ]


def _same(one: Example, other: Example) -> bool:
    """By question too: another data set may have the same ids."""
    return (one.id, one.question) == (other.id, other.question)


def _words(examples: Sequence[Example]) -> list[list[str]]:
    import bm25s

    texts = [task_input_text(example)[0] for example in examples]
    words: list[list[str]] = bm25s.tokenize(
        texts, stopwords=None, show_progress=False, return_ids=False
    )
    return words
