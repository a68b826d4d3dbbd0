"""Hub sources: data sets of the Hugging Face hub, each row mapped to an example.

The repositories contain Parquet files and no loading script, so none of their code ever runs.
Fields and splits are from their data set cards (`dataset_info` in README.md or dataset_infos.json):

| source | repository, config | splits | rationale |
|---|---|---|---|
| strategyqa | ChilleD/StrategyQA | train 1,603, test 687 | `facts` |
| openbookqa | allenai/openbookqa, additional | 4,957 / 500 / 500 | `fact1` |
| cos_e | Salesforce/cos_e, v1.0 | 7,610 / 950, no test | `abstractive_explanation` |
| ecqa | tasksource/ecqa | 7,598 / 1,090 / 2,194 | `taskB`, the free-flow explanation |
| quarel | community-datasets/quarel | 1,941 / 278 / 552 | `logical_form_pretty` in words |
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from knife.compat.datasets import offline
from knife.core.errors import UserError
from knife.core.words import counted
from knife.data.example import Example, Splits
from knife.data.hub_rows import Row, cos_e, ecqa, openbookqa, quarel, strategyqa
from knife.data.jsonl import FOLDER_FORMAT
from knife.data.line_errors import LineError, show
from knife.data.record import Record, read_example

SECONDS_TO_ANSWER = 5


@dataclass(frozen=True, slots=True)
class HubSource:
    """The location of a source on the hub, and how its rows become examples.

    Attributes:
        repository: the hub id.
        config: the data set's config, or None if it has only one.
        read: maps a row to a record of the kind that files contain.
        note: what a user should know about the mapping, or "".
    """

    repository: str
    config: str | None
    read: Callable[[Row], Record]
    note: str = ""


SOURCES = {
    "strategyqa": HubSource("ChilleD/StrategyQA", None, strategyqa),
    "openbookqa": HubSource("allenai/openbookqa", "additional", openbookqa),
    "cos_e": HubSource("Salesforce/cos_e", "v1.0", cos_e),
    "ecqa": HubSource("tasksource/ecqa", None, ecqa),
    "quarel": HubSource(
        "community-datasets/quarel",
        None,
        quarel,
        "quarel has no free-text rationales: its logical forms, put into words, are used instead",
    ),
}


def load_hub(name: str) -> Splits:
    """Load the hub source `name` from the hub, or from the local cache if it is there.

    A split that the hub lacks, or whose answers it hides, is returned empty. Rows that cannot be
    an example, or that repeat an earlier id, are left out. Notes report both.

    Raises:
        UserError: neither hub nor cache has the data (the message says how to use a folder
            instead), or its columns differ from those of its card.
    """
    source = SOURCES[name]
    tables = download(name, source.repository, source.config)
    notes = [source.note] if source.note else []
    split_of: dict[str, str] = {}
    splits: dict[str, list[Example]] = {}
    for split, hub_split in (("train", "train"), ("dev", "validation"), ("test", "test")):
        rows = tables.get(hub_split, [])
        splits[split] = read_rows(name, split, rows, split_of, notes)
    if not splits["train"]:
        raise UserError(f"data.source: {name}: no usable training examples; {'; '.join(notes)}")
    return Splits(splits["train"], splits["dev"], splits["test"], notes)


def download(
    name: str, repository: str, config: str | None, revision: str | None = None
) -> Mapping[str, Any]:
    """Return a data set's tables by the hub's split name; `name` is how the user calls it.

    Raises:
        UserError: neither the hub nor the local cache has it.
    """
    import datasets
    import huggingface_hub

    # If the hub is unreachable, the library retries for half a minute or more.
    reached = _answers(huggingface_hub.constants.ENDPOINT)
    try:
        with nullcontext() if reached else offline():
            tables: Mapping[str, Any] = datasets.load_dataset(repository, config, revision=revision)
    # Network, hub, cache and file format each raise their own exceptions, from four libraries.
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"data.source: {name!r} could not be loaded from the hub ({repository}): "
            f"{type(error).__name__}: {reason}. Without the hub, use a folder of JSON Lines: "
            f"data.source=/path/to/folder ({FOLDER_FORMAT})"
        ) from error
    return tables


def _answers(endpoint: str) -> bool:
    """Whether the hub answers within seconds, using its own client, which knows proxies and
    certificates."""
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(endpoint, timeout=SECONDS_TO_ANSWER)
    # The client's HTTP library, and with it the exceptions, differs between versions.
    except Exception:
        return False
    return True


def read_rows(
    name: str, split: str, rows: Iterable[Row], split_of: dict[str, str], notes: list[str]
) -> list[Example]:
    """Return the examples of a split. Adds counts by reason of rows left out to `notes`, and the
    split of each id to `split_of`."""
    examples: list[Example] = []
    reasons: Counter[str] = Counter()
    first = ""
    merged = 0
    for number, row in enumerate(rows, 1):
        record, errors = _record(name, row)
        example = None
        if not errors:
            example, errors = read_example(record)
        if example is None:
            reason, said = f"with {errors[0].reason}", errors[0].message
        elif other := split_of.get(example.id):
            reason = f"whose id is also in {other}" if other != split else "with a repeated id"
            said = f"id {example.id!r}"
        else:
            split_of[example.id] = split
            examples.append(example)
            merged += len(example.choices) < len(record["choices"])
            continue
        reasons[reason] += 1
        first = first or f"row {number}: {said}"
    if left_out := reasons.total():
        total = left_out + len(examples)
        counts = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common())
        how_many = f"{left_out:,} of {total:,} rows are left out"
        start = f"{name} {split}: {how_many}"
        if not examples:
            start = f"{name} {split} is not used: all {total:,} rows are left out"
        notes.append(f"{start}: {counts}; the first: {first}")
    if merged:
        notes.append(f"{name} {split}: equal wrong choices were merged in {counted(merged, 'row')}")
    return examples


def _record(name: str, row: Row) -> tuple[Record, list[LineError]]:
    """Turn a row into a record, or return why it cannot be one.

    Raises:
        UserError: it lacks a column.
    """
    source = SOURCES[name]
    try:
        return source.read(row), []
    except KeyError as error:
        raise UserError(
            f"data.source: {name!r}: {source.repository} has changed on the hub: {error.args[0]!r} "
            f"is missing in a row with {', '.join(row)}; use a folder of JSON Lines: "
            f"data.source=/path/to/folder ({FOLDER_FORMAT})"
        ) from error
    # A value of an unexpected type fails wherever the mapping reads it.
    except (TypeError, AttributeError, ValueError) as error:
        return {}, [LineError(f"{error}: {show(row)}", "a value of another type")]
