"""A split of a run's data as MLflow is told of it: name, digest, size and place, not the data."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class DataSet:
    """A split.

    Attributes:
        name: of the source, and how its rationales were treated.
        split: train, dev or test.
        digest: of the split's content.
        place: its file in the store.
        examples, rationales: how many it has.
    """

    name: str
    split: str
    digest: str
    place: str
    examples: int
    rationales: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)
