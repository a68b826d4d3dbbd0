"""The example: one question with its answer and, optionally, choices and a rationale."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# `Example.answer` of a question whose answer is unknown.
UNANSWERED = -1


@dataclass(frozen=True, slots=True)
class Example:
    """One question: multiple-choice, or open, which is answered with free text.

    Attributes:
        id: unique within its data set.
        question: the question's text.
        choices: two or more answer texts; question and choices are the task input `I`. For an
            open question, only the right answer, which is not part of the task input, or nothing
            if the answer is unknown.
        answer: index of the right choice.
        rationale: free text that explains the answer (`R`), or None. Training data only.
        group: what examples of one source, such as a passage, have in common, or None: splits
            that are made keep them on one side.
        more_rationales: others for the same answer; a teacher reads one of all in each epoch.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    rationale: str | None = None
    group: str | None = None
    more_rationales: tuple[str, ...] = ()

    @property
    def rationales(self) -> tuple[str, ...]:
        """All rationales, the first one included; () if there is none."""
        return () if self.rationale is None else (self.rationale, *self.more_rationales)

    @property
    def open(self) -> bool:
        """Whether the answer is free text."""
        return len(self.choices) < 2


@dataclass(frozen=True, slots=True)
class Splits:
    """The three splits of a source.

    Attributes:
        train: what teacher and student are trained on.
        dev: used to choose the best epoch; never trained on.
        test: what the verdict is computed on.
        notes: decisions made while loading that a user should know, one sentence each
            (for example that a missing test split was made from dev).
        left_out: number of examples left out because they are too long, by split.
        digests: those already computed, by split and whether they include rationales.
    """

    train: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example]
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    digests: dict[tuple[str, bool], str] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def parts(self) -> dict[str, Sequence[Example]]:
        """The splits by name, in the order train, dev, test."""
        return {"train": self.train, "dev": self.dev, "test": self.test}

    def each(self, change: Callable[[Sequence[Example]], Sequence[Example]]) -> "Splits":
        """Return the splits, each changed, without notes on how they were loaded."""
        return Splits(change(self.train), change(self.dev), change(self.test))

    @property
    def everything(self) -> list[Example]:
        """The examples of train, dev and test, concatenated."""
        return [*self.train, *self.dev, *self.test]
