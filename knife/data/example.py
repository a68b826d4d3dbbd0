"""The example: one question with its answer and, where there are some, choices and a rationale."""

from dataclasses import dataclass, field

# The answer of a question whose answer is not known.
UNANSWERED = -1


@dataclass(frozen=True, slots=True)
class Example:
    """One question: multiple-choice, or open, whose answer is written freely.

    Attributes:
        id: unique within its data set.
        question: the question's text.
        choices: two or more answer texts; question and choices are the task input `I`. An open
            question has its right answer here alone, which is no part of the task input, or
            nothing where the answer is not known.
        answer: index of the right choice.
        rationale: free text that explains the answer (`R`), or None. Training data only.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    rationale: str | None = None

    @property
    def open(self) -> bool:
        """Whether the answer is written freely."""
        return len(self.choices) < 2


@dataclass(frozen=True, slots=True)
class Splits:
    """The three splits of a source.

    Attributes:
        train: what teacher and student learn from.
        dev: chooses the best epoch; never trained on.
        test: what the verdict is computed on.
        notes: what was decided on the way and a user should know, one sentence each
            (for example that a missing test split was made from dev).
        left_out: number of examples that were too long, by split, where they are left out.
        digests: those that were computed, by split and whether they hold rationales.
    """

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    digests: dict[tuple[str, bool], str] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
