"""A split of a run's data as recorded in MLflow: name, digest, size and place, not the data."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class DataSet:
    """A split.

    Attributes:
        name: the source's name, and how its rationales were treated.
        split: train, dev or test.
        digest: digest of the split's content.
        place: its file in the store.
        examples, rationales: how many of each it has.
    """

    name: str
    split: str
    digest: str
    place: str
    examples: int
    rationales: int

    def to_dict(self) -> dict[str, Any]:
        """Return the values, JSON-ready."""
        return asdict(self)
