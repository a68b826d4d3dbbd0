"""Any source as three splits: the embedded world, a hub source, or a file or folder of JSON Lines.

Splits that a source lacks are made from those it has, the same ones at every start.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from knife.config import Data
from knife.data import hub
from knife.data.check import repeated_questions
from knife.data.example import Example, Splits
from knife.data.jsonl import FOLDER_FORMAT, cap, read_examples
from knife.data.subset import hold_out
from knife.errors import UserError, nearest, raise_faults

KNOWN_SOURCES = ("creatures", *hub.SOURCES)
FILE_NAMES = {
    "train": ("train.jsonl",),
    "dev": ("dev.jsonl", "validation.jsonl", "valid.jsonl"),
    "test": ("test.jsonl",),
}
DEV_SHARE = 0.1
TEST_SHARE = 0.2


def load_source(data: Data) -> Splits:
    """The splits of `data.source`: a known name, or else a file or folder of JSON Lines.

    A folder holds train.jsonl and, where there are, dev.jsonl (or validation.jsonl, valid.jsonl)
    and test.jsonl; a single file is the training split. What is missing is made, stratified and
    by `data.split_seed`: without test, dev becomes test; without dev, 10 % of train become dev;
    without both, 20 % of train become test besides. Notes say so, and say how many questions
    stand in two splits.

    Raises:
        UserError: for an unknown source, with the nearest known name; with all faults of all
            files at once; for an id that stands in two splits; where the hub is out of reach.
    """
    splits = complete(_load(data), data.split_seed)
    return replace(splits, notes=[*splits.notes, *repeated_questions(splits)])


def complete(splits: Splits, seed: int) -> Splits:
    """`splits` with those made that are empty; notes say how.

    Raises:
        UserError: where train is too small to hold any of it out.
    """
    train, dev, test = splits.train, splits.dev, splits.test
    notes = list(splits.notes)
    total = len(train)
    if total < (1 if dev and test else 2 if dev or test else 3):
        raise UserError(
            f"data.source: {total} training examples are too few to make the missing splits of; "
            "give dev.jsonl and test.jsonl, or more examples"
        )
    if not dev and not test:
        train, test = hold_out(train, TEST_SHARE, seed)
        notes.append(f"no test split: {len(test)} of the {total} training examples became test")
    elif not test:
        dev, test = [], dev
        notes.append(f"no test split: dev, with {len(test)} examples, became test")
    if not dev:
        # The share is of all that train held before test was taken out of it.
        train, dev = hold_out(train, DEV_SHARE * total / len(train), seed)
        notes.append(f"no dev split: {len(dev)} of the {total} training examples became dev")
    return Splits(train, dev, test, notes)


def _load(data: Data) -> Splits:
    """What the source itself has; missing splits are empty."""
    if data.source == "creatures":
        from knife.data.creatures import creatures

        return creatures(data.world)
    if data.source in hub.SOURCES:
        return hub.load_hub(data.source)
    path = Path(data.source).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if path.exists():
        return Splits(read_examples(path), [], [])
    raise UserError(
        f"data.source: {data.source!r} is neither a known source nor a file or folder; "
        f"{nearest(data.source, KNOWN_SOURCES)} ({FOLDER_FORMAT})"
    )


def _read_folder(folder: Path) -> Splits:
    """The splits that a folder has files for; all faults of all files at once."""
    faults = []
    splits: dict[str, list[Example]] = {}
    for split, names in FILE_NAMES.items():
        present = [folder / name for name in names if (folder / name).exists()]
        if len(present) > 1:
            faults.append(f"{folder}: {split} stands in {_names(present)}; keep one of them")
        for path in present:
            try:
                splits[split] = read_examples(path)
            except UserError as error:
                faults += error.faults
    if not (folder / "train.jsonl").exists():
        others = _names(sorted(folder.glob("*.jsonl"))) or "no .jsonl file"
        faults.append(f"{folder}: train.jsonl is missing; the folder has {others}")
    raise_faults([*faults, *_shared_ids(folder, splits), *_mixed(folder, splits)])
    return Splits(splits["train"], splits.get("dev", []), splits.get("test", []))


def _shared_ids(folder: Path, splits: dict[str, list[Example]]) -> list[str]:
    """A fault for each id that stands in two splits."""
    faults = []
    first: dict[str, str] = {}
    for split, examples in splits.items():
        for example in examples:
            other = first.setdefault(example.id, split)
            if other != split:
                faults.append(f"{folder}: id {example.id!r} stands in {other} and in {split}")
    return cap(faults)


def _mixed(folder: Path, splits: dict[str, list[Example]]) -> list[str]:
    """The fault of splits of which some hold open questions and others questions with choices."""
    kinds = {split: examples[0].open for split, examples in splits.items() if examples}
    if len(set(kinds.values())) < 2:
        return []
    opened = [split for split, is_open in kinds.items() if is_open]
    others = [split for split, is_open in kinds.items() if not is_open]
    return [
        f"{folder}: {' and '.join(opened)} holds open questions (without choices), but "
        f"{' and '.join(others)} questions with choices; all splits must hold the same kind"
    ]


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)
