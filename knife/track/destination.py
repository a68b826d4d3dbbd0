"""Where a run or a sweep is recorded: a file in its folder, without passwords."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from knife.core.atomic import write_json

NAME = "mlflow.json"


@dataclass(frozen=True, slots=True)
class Destination:
    """Where MLflow has a run or a sweep.

    Attributes:
        uri: the tracking URI without password.
        where: the setting that it came from.
        experiment: the experiment's name.
        run_id: MLflow's id of the run; None until it is there.
        whole: whether MLflow has everything, up to the end of the last start.
    """

    uri: str
    where: str
    experiment: str
    run_id: str | None = None
    whole: bool = False

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read the destination of a run or a sweep; None if it was never recorded."""
        path = folder / NAME
        return cls(**json.loads(path.read_text())) if path.is_file() else None

    def write(self, folder: Path) -> None:
        """Write it into the folder of a run or a sweep."""
        write_json(folder / NAME, asdict(self))

    def same_place(self, other: "Destination") -> bool:
        """Whether both are the same experiment of the same MLflow."""
        return (self.uri, self.where, self.experiment) == (
            other.uri,
            other.where,
            other.experiment,
        )


def unsent(store: Path) -> Iterator[Path]:
    """Yield the folders of runs and sweeps in a store of which MLflow may lack something."""
    for path in sorted(store.glob(f"*/*/{NAME}")):
        destination = Destination.read(path.parent)
        if destination and not destination.whole:
            yield path.parent
