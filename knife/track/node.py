"""A run as MLflow has to show it: plain values, made from the store alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from knife.train.journal import Row

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
Place = tuple[str, ...]
# In the folder of a run or a sweep: measurements of the driver's machine, by `system_metrics`.
SYSTEM = "system.jsonl"


@dataclass(frozen=True, slots=True)
class DataSet:
    """A split of a run's data: where it is and how large, not the data itself.

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


@dataclass(frozen=True, kw_only=True, slots=True)
class RunNode:
    """A run and the runs nested in it.

    Attributes:
        key: finds the run in MLflow, below its parent.
        name: shown in MLflow.
        began, ended: Unix seconds; `ended` is None while the run is RUNNING.
        status: MLflow's status.
        params, tags: within MLflow's limits, as `to_params` and `to_tags` make them.
        inputs: the data that it reads.
        journals: kind and key of the stages whose curves it shows.
        rows: further measurements, in step order, under their own names.
        row_file: a file of further rows, by its path in the store.
        summary: results of the whole run.
        texts: text artifacts by name.
        files: artifacts by their path in the store.
        model: path in the store of the student that is logged as a model, under the run's name.
        registered: the registered model whose champion that model becomes.
        children: the nested runs.
    """

    key: str
    name: str
    began: float
    status: Status
    ended: float | None = None
    params: dict[str, str]
    tags: dict[str, str]
    inputs: tuple[DataSet, ...] = ()
    journals: tuple[tuple[str, str], ...] = ()
    rows: tuple[Row, ...] = ()
    row_file: str | None = None
    summary: dict[str, float]
    texts: dict[str, str]
    files: tuple[str, ...] = ()
    model: str | None = None
    registered: str | None = None
    children: tuple["RunNode", ...] = ()

    def walk(self, above: Place = ()) -> Iterator[tuple[Place, "RunNode"]]:
        """Yield the run and all runs nested in it, parents first, with the keys that lead there."""
        place = (*above, self.key)
        yield place, self
        for child in self.children:
            yield from child.walk(place)
