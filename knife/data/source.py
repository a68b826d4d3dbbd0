"""Loads any source as three splits: a world of the package, the hub, or a file or folder.

Splits that a source lacks are made from those it has, deterministically.
"""

from dataclasses import replace
from pathlib import Path

from knife.config.run import Data
from knife.core.errors import UserError, nearest, raise_errors
from knife.core.garbage import no_search_for_cycles
from knife.data.check import repeated_questions, shared_groups
from knife.data.example import Splits
from knife.data.examples import Examples
from knife.data.folder import find_files
from knife.data.half_real import HALF_REAL, half_real, world_text
from knife.data.hub import load_hub
from knife.data.jsonl import FOLDER_FORMAT, read_file
from knife.data.known import KNOWN, PREFIX, place_of
from knife.data.line_errors import shown_ids
from knife.data.subset import hold_out
from knife.data.tables.columns import cut_errors
from knife.data.tables.table import is_table

WORLDS = ("creatures", *HALF_REAL)
KNOWN_SOURCES = (*WORLDS, *KNOWN)
DEV_SHARE = 0.1
TEST_SHARE = 0.2


def load_source(data: Data) -> Splits:
    """Load the splits of `data.source`: a known name, `hub:OWNER/NAME`, or else a file or folder of
    examples, or of tables whose columns `data.columns` maps.

    A folder has files named after the splits (see `knife.data.folder`); a single file is the
    training split. Missing splits are made by `data.split_seed`, stratified, with no question in
    both parts: without test, dev becomes test; without dev, 10 % of train become dev; without
    both, another 20 % of train become test. Notes report this, what is not read, and how many
    questions are in two splits.

    Raises:
        UserError: the source is unknown (with the nearest known name), files have errors (all of
            them at once), an id is in two splits, or the hub is unreachable.
    """
    with no_search_for_cycles():
        splits = complete(load_whole(data), data.split_seed)
        found = [*repeated_questions(splits), *shared_groups(splits)]
    return replace(splits, notes=[*splits.notes, *found])


def source_state(data: Data) -> object | None:
    """Return values that change whenever a source gives other examples; None if that cannot be
    known, as of a data set of the hub: its cache may have another revision."""
    if data.source == "creatures":
        return "creatures"
    if data.source in HALF_REAL:
        return [data.source, world_text(data.source)]
    if place_of(data.source):
        return None
    path = Path(data.source).expanduser().resolve()
    names, paths = list[str](), [path]
    try:
        if path.is_dir():
            # Notes name what is not read, whatever is in it.
            names = sorted(each.name for each in path.iterdir())
            paths = [each for some in find_files(path).files.values() for each in some]
        about = [(str(each), each.stat()) for each in paths]
    except (OSError, UserError):
        return None
    # The time of the last change of a file's inode cannot be set, as that of its content can.
    times = [(name, of.st_size, of.st_mtime_ns, of.st_ctime_ns, of.st_ino) for name, of in about]
    return [names, times]


def complete(splits: Splits, seed: int) -> Splits:
    """Return `splits` with empty ones filled from the others; notes say how.

    Raises:
        UserError: train is too small to hold out any of it.
    """
    train, dev, test = splits.train, splits.dev, splits.test
    notes = list(splits.notes)
    total = len(train)
    if total < (1 if dev and test else 2 if dev or test else 3):
        raise UserError(
            f"data.source: {total} training examples are too few to make the missing splits from; "
            "give dev.jsonl and test.jsonl, or more examples"
        )
    if not dev and not test:
        train, test = hold_out(train, TEST_SHARE, seed)
        notes.append(f"no test split: {len(test)} of the {total} training examples became test")
    elif not test:
        dev, test = [], dev
        notes.append(f"no test split: dev, with {len(test)} examples, became test")
    if not dev:
        # The share is of train as it was before test was taken out.
        train, dev = hold_out(train, DEV_SHARE * total / len(train), seed)
        notes.append(f"no dev split: {len(dev)} of the {total} training examples became dev")
    return Splits(train, dev, test, notes)


def load_whole(data: Data) -> Splits:
    """Load the splits that the source itself has; missing ones are empty.

    Raises:
        UserError: as `load_source` does.
    """
    if data.source in WORLDS:
        from knife.data.creatures import creatures

        raise_errors(cut_errors(data.cut, ["question"], data.source))
        own = data.source == "creatures"
        return creatures(data.world) if own else half_real(data.source, data.facts)
    if data.source in KNOWN or data.source.startswith(PREFIX):
        return load_hub(data.source, data.columns, data.faulty_share, data.cut)
    path = Path(data.source).expanduser()
    if path.is_dir():
        return _read_folder(path, data)
    if path.exists():
        read = read_file(path, data.columns, data.faulty_share, cut=data.cut)
        return Splits(read.examples, [], [], read.notes)
    raise UserError(
        f"data.source: {data.source!r} is neither a known source nor a file or folder; "
        f"{nearest(data.source, KNOWN_SOURCES)} ({FOLDER_FORMAT})"
    )


def _read_folder(folder: Path, data: Data) -> Splits:
    """Read the splits of a folder, reporting all errors in all files at once."""
    found = find_files(folder)
    errors, notes = list(found.errors), list(found.notes)
    parts: dict[str, dict[Path, Examples]] = {}
    columns = data.columns
    for split, paths in found.files.items():
        parts[split] = {}
        # The shards of a table are one table: what they hold is found out from all of them.
        first, *others = paths
        shards = others if is_table(first) else []
        for path in [first] if shards else paths:
            try:
                given = columns if is_table(path) else data.columns
                # The same question in two splits is noted, and not an id that is in both.
                prefix = "" if split == "train" else f"{split}-"
                read = read_file(path, given, data.faulty_share, prefix, shards, data.cut)
            except UserError as error:
                errors += error.errors
                continue
            parts[split][path] = read.examples
            notes += read.notes
            # What was found out about the first table, of train, holds for all.
            columns = columns if columns and columns.answer_is else read.columns or columns
    splits = {
        split: Examples.joined(list(files.values())) for split, files in parts.items() if files
    }
    raise_errors([*errors, *_shared_ids(folder, parts), *_mixed(folder, splits)])
    return Splits(splits["train"], splits.get("dev", []), splits.get("test", []), notes)


def _shared_ids(folder: Path, parts: dict[str, dict[Path, Examples]]) -> list[str]:
    """Return an error for each pair of splits, or of files of one split, with common ids."""
    shared: dict[str, list[str]] = {}
    first: dict[str, tuple[str, Path]] = {}
    for split, files in parts.items():
        for path, examples in files.items():
            place = (split, path)
            for identity in examples.values("id"):
                other, other_path = first.setdefault(identity, place)
                if other != split:
                    shared.setdefault(f"{other} and in {split}", []).append(identity)
                elif other_path != path:
                    places = f"{other_path.name} and in {path.name}"
                    shared.setdefault(places, []).append(identity)
    return [
        f"{folder}: {len(ids):,} ids are in {places}: {shown_ids(ids)}"
        if len(ids) > 1
        else f"{folder}: id {ids[0]!r} is in {places}"
        for places, ids in shared.items()
    ]


def _mixed(folder: Path, splits: dict[str, Examples]) -> list[str]:
    """Return the error if some splits have open questions and others questions with choices."""
    kinds = {split: examples[0].open for split, examples in splits.items() if examples}
    if len(set(kinds.values())) < 2:
        return []
    opened = [split for split, is_open in kinds.items() if is_open]
    others = [split for split, is_open in kinds.items() if not is_open]
    return [
        f"{folder}: {' and '.join(opened)} holds open questions (without choices), but "
        f"{' and '.join(others)} questions with choices; all splits must hold the same kind"
    ]
