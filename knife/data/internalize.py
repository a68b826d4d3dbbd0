"""Stepwise internalization: how much of a rationale is left in each epoch (Deng et al. 2024, arXiv
2405.14838, section 3)."""

from dataclasses import dataclass

from knife.config.methods import Internalize


@dataclass
class Removal:
    """How many tokens are removed from the front of every rationale.

    Attributes:
        each_epoch: how many more in each epoch.
        longest: the tokens of the longest rationale: after these, nothing more is removed.
        removed: how many now; none before `begin`.
    """

    each_epoch: int
    longest: int
    removed: int = 0

    @staticmethod
    def of(settings: Internalize, longest: int, epochs: int) -> "Removal":
        """Return what a training of so many epochs removes. If the settings leave it open, the
        longest rationale is gone within the first half, or after the first epoch of less than
        four."""
        each = -(-longest // max(1, epochs // 2))
        return Removal(settings.tokens_each_epoch or max(1, each), longest)

    def note(self, epochs: int) -> str | None:
        """Say if rationales are never wholly removed, as then no answer is trained at once."""
        last = self.at(epochs - 1)
        if last == self.longest:
            return None
        return (
            f"internalize: {last} tokens are removed in the last of {epochs} epochs, but the "
            f"longest rationale has {self.longest}: answers to its question are never trained "
            "without the rest of it, as they are tested; raise internalize.tokens_each_epoch or "
            "student.epochs"
        )

    def begin(self, epoch: int) -> None:
        """Remove what an epoch removes, by its number from 0 alone."""
        self.removed = self.at(epoch)

    def anew(self, epoch: int) -> bool:
        """Whether an epoch removes more than the one before, so that its task is another one."""
        return epoch > 0 and self.at(epoch) > self.at(epoch - 1)

    def at(self, epoch: int) -> int:
        """Return how many tokens an epoch removes."""
        return min(epoch * self.each_epoch, self.longest)
