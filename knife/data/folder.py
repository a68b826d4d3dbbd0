"""Finds the files of each split in a folder, and reports files that are not read.

A split is found by name, in any letter case: `dev.jsonl`, `validation.json.gz`, `test.csv`, or a
complete set of shards such as `test-00000-of-00002.parquet`. A file that seems to be a split but
is not read is an error if that split is missing (it would be taken from train), and otherwise goes
into a note.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

SPLITS = {
    "train": ("train",),
    "dev": ("dev", "val", "valid", "validation", "eval"),
    "test": ("test",),
}
# Names that are not read, but show what a file is meant to be.
_MORE_NAMES = {
    "train": ("training", "trainset", "traindata"),
    "dev": ("development", "evaluation", "devset", "valset", "validset", "devdata", "valdata"),
    "test": ("testing", "testset", "tests", "testdata"),
}
_READ = r"\.((jsonl|ndjson|jsonlines|json)(\.gz)?|csv|tsv|parquet|arrow|feather)"
_SHARD = r"[-_.](?P<number>\d+)-of-(?P<total>\d+)(-[0-9a-f]{16})?"
# Usual data file names, compressed or not, whether they are read or not.
_DATA = re.compile(
    r"\.(jsonl|ndjson|jsonlines|json|csv|tsv|parquet|arrow|feather|xlsx?|pkl|pickle|gz|zip|zst|bz2"
    r"|xz|tar|tgz)(\.|~|$)"
)


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of a folder by split, in the order in which they are read.

    Attributes:
        files: the files of each split that has any.
        errors: what is wrong with the names.
        notes: what a user should know about the files.
    """

    files: dict[str, list[Path]]
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_files(folder: Path) -> Folder:
    """Find the files of the splits in `folder`, by their names alone."""
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    found = Folder({})
    left = list(entries)
    for split, names in SPLITS.items():
        pattern = re.compile(rf"({'|'.join(names)})({_SHARD})?{_READ}")
        matches = {path: pattern.fullmatch(path.name.lower()) for path in entries}
        own = {path: match for path, match in matches.items() if match and path.is_file()}
        left = [path for path in left if path not in own]
        if own:
            # Shards by number.
            found.files[split] = sorted(own, key=lambda p: (int(own[p]["number"] or 0), p.name))
            found.errors.extend(_clash(folder, split, own))
    passed_over = []
    for path in left:
        meant = _meant(path)
        if meant and meant not in found.files:
            found.errors.append(_refusal(folder, path, meant))
        elif meant or (path.is_file() and _DATA.search(path.name.lower())):
            passed_over.append(path)
    if "train" not in found.files and "train" not in map(_meant, left):
        others = names_of(entries) or "no files"
        found.errors.append(f"{folder}: train.jsonl is missing; the folder has {others}")
    if passed_over:
        found.notes.append(f"{folder}: files that are not read: {names_of(passed_over)}")
    return found


def names_of(paths: Iterable[Path]) -> str:
    """Format file names for a message; at most ten."""
    names = [path.name for path in paths]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def _clash(folder: Path, split: str, own: dict[Path, re.Match[str]]) -> list[str]:
    """Return the error for a split whose files are duplicates or an incomplete set of shards."""
    shards = {(match["number"], match["total"]) for match in own.values()}
    totals = {int(total) for _, total in shards if total}
    whole = any(total is None for _, total in shards)
    kinds = {re.sub(_SHARD, "", path.name.lower()) for path in own}
    if len(own) == 1 and whole:
        return []
    if whole or len(totals) > 1 or len(kinds) > 1 or len(shards) < len(own):
        return [f"{folder}: {split} is in {names_of(own)}; keep one of them"]
    (total,) = totals
    there = {int(number) for number, _ in shards}
    missing = sorted(set(range(total)) - there)
    if not missing or there == set(range(1, total + 1)):
        return []
    numbers = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
    return [
        f"{folder}: {split} has {len(own)} of {total} shards ({names_of(own)}); missing, counted "
        f"from 0: {numbers}"
    ]


def _meant(path: Path) -> str | None:
    """Return the split that an unread file or folder seems to be: test.csv, my_val.jsonl."""
    name = path.name.lower()
    if path.is_dir():
        words = {name}
    elif _DATA.search(name) or path.suffix in ("", ".txt"):
        words = set(re.split(r"[^a-z]+", name))
    else:
        return None
    for split, names in SPLITS.items():
        if words & {*names, *_MORE_NAMES[split]}:
            return split
    return None


def _refusal(folder: Path, path: Path, split: str) -> str:
    if path.is_dir():
        return (
            f"{folder}: the folder {path.name} seems to hold {split}, but is not read: put its "
            f"examples into {split}.jsonl, or remove it"
        )
    return (
        f"{folder}: {path.name} seems to be {split}, but is not read: make it {split}.jsonl, .csv, "
        "or .parquet, or remove it"
    )
