"""Data as Arrow files in the store of this host: read, treated and tokenized only once.

    sources/<key>/facts.json   what data came of a source by given settings: notes, digests, its key
    data/<key>/*.arrow         the splits of a run
    tokens/<key>/*.arrow       these as tokens of a model, with facts.json about all of them
    self-tests/<key>/          facts.json: there if a kind of model has passed
    forecasts/<key>/facts.json what a forecast reads of a run's data

A source counts as the same if its files have not been touched since, and the code that reads it is
the same.
"""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from knife.core.atomic import write_json
from knife.core.errors import UserError
from knife.data.digest import split_digest
from knife.data.example import Splits
from knife.data.examples import Examples
from knife.data.same_tokens import look_for_same_tokens
from knife.data.several import more_of_train, several_files
from knife.data.token_table import TokenTable, longest_choice
from knife.data.tokenizing import Mark, tokenize_splits
from knife.data.tokens import Truncation
from knife.data.words import look_for_words
from knife.plan.memory import Lengths, token_lengths
from knife.plan.writable import unwritable_notes
from knife.store.disk import disk_errors
from knife.store.store import Store, fingerprint, store_errors, store_root

SPLITS = ("train", "dev", "test")
# Incremented when the files of examples get other columns.
_FORMAT = 1
_FACTS = "facts.json"
# What examples and tokens come from besides our own code; bm25s has the stop words.
_LIBRARIES = ("bm25s", "datasets", "pyarrow", "tokenizers", "torch", "transformers")
# Stands for the model's name in messages that are kept.
_MODEL = "\0"


@dataclass(frozen=True)
class TokenFacts:
    """What is known about all examples as tokens of a model.

    Attributes:
        digest: of task inputs and choices: equal if two models split them into the same tokens.
        truncation: what truncation removed.
        longest: number of tokens of the longest choice.
        lengths: lengths of the examples of train.
        errors, notes: on answers that cannot be told apart or cannot be generated, and on words
            that have no tokens.
    """

    digest: str
    truncation: Truncation
    longest: int
    lengths: Lengths
    errors: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Tokenized:
    """The splits of a run as tokens of a model.

    Attributes:
        key: their key in the store.
        folder: where they are.
        facts: what is known about them.
    """

    key: str
    folder: Path
    facts: TokenFacts

    def split(self, name: str) -> TokenTable:
        """Return the tokens of one split."""
        return TokenTable.open(self.folder / f"{name}.arrow")


def data_key(splits: Splits) -> str:
    """Return the key of a run's data: all three splits with their rationales."""
    found = [split_digest(splits, name, rationales=True) for name in ("train", "dev", "test")]
    return fingerprint({"format": _FORMAT, "splits": found})


class Prepared:
    """Data and tokens in the store of this host."""

    def __init__(self, store: Path | str) -> None:
        """Use the store's folder on this host, or a temporary one if it cannot be written to."""
        self._temporary = tempfile.TemporaryDirectory() if store_errors(store) else None
        self._root = Path(self._temporary.name) if self._temporary else store_root(store)
        # What only reads leaves no trace.
        self._store = Store(self._root, write=False)
        self._looked_at: set[tuple[str, str]] = set()

    def splits(self, request: object | None, make: Callable[[], tuple[Splits, bool]]) -> Splits:
        """Return the splits that a request was answered with before, or else make and keep them.

        `request` covers everything that the splits depend on, but for code and libraries; None if
        that cannot be known. `make` also returns whether that is still what it was.
        """
        key = _key(request)
        about = self._facts("sources", key) if request is not None else None
        if about is not None and self._sound("data", about["data"]):
            known = {(name, of): found for name, of, found in about["digests"]}
            return self._opened(about["data"], about["notes"], about["left_out"], known)
        splits, unchanged = make()
        data = self.keep(splits)
        if request is not None and unchanged:
            facts = {
                "data": data,
                "notes": splits.notes,
                "left_out": splits.left_out,
                "digests": [[*of, found] for of, found in splits.digests.items()],
            }
            self._publish("sources", key, lambda work: write_json(work / _FACTS, facts))
        return self._opened(data, splits.notes, splits.left_out, splits.digests)

    def copy(self, kind: str, key: str, folder: Path) -> None:
        """Copy data or tokens into a folder.

        Raises:
            FileNotFoundError: they are not there any more.
        """
        place = self._store.path(kind, key)
        names = [f"{name}.arrow" for name in SPLITS]
        if kind == "tokens":
            names += [_FACTS, *(path.name for path in several_files(place))]
        for name in names:
            shutil.copyfile(place / name, folder / name)

    def keep(self, splits: Splits) -> str:
        """Keep splits; return their key."""
        key = data_key(splits)

        def write(work: Path) -> None:
            for name, part in splits.parts.items():
                # The key does not cover groups, which only making the splits needed.
                Examples.of(part).without_groups().write(work / f"{name}.arrow")

        self._publish("data", key, write)
        return key

    def tokens(
        self,
        splits: Splits,
        tokenizer: Any,
        identity: object,
        limit: int,
        marks: Collection[Mark] = (),
    ) -> Tokenized:
        """Return splits that are kept as tokens of a model; make them if they are not there.

        Raises:
            UserError: as `tokenize` does.
        """
        data = data_key(splits)
        key = _key(["tokens", data, identity, limit, sorted(marks)])

        def write(work: Path) -> None:
            facts = _tokenized(splits, tokenizer, limit, work, marks)
            write_json(work / _FACTS, asdict(facts))

        about = self._facts("tokens", key)
        if about is None:
            self._publish("tokens", key, write)
            about = self._facts("tokens", key)
        about["truncation"] = Truncation(**about["truncation"])
        about["lengths"] = Lengths(**about["lengths"])
        return Tokenized(key, self._store.path("tokens", key), TokenFacts(**about))

    def failures(self, model: object, make: Callable[[], list[str]]) -> list[str]:
        """Return what a kind of model fails in: nothing if it has passed before.

        `model` covers everything that this depends on, but for code and libraries. A failure is
        not kept: what it came from, such as a full disk, may pass.
        """
        key = _key(["self-test", model])
        if self._facts("self-tests", key) is not None:
            return []
        failures = make()
        if not failures:
            facts = {"passed": True}
            self._publish("self-tests", key, lambda work: write_json(work / _FACTS, facts))
        return failures

    def forecast(self, splits: Splits) -> dict[str, Any] | None:
        """Return what a forecast reads of a run's data; None if that was not kept."""
        found: dict[str, Any] | None = self._facts("forecasts", _forecast_key(splits))
        return found

    def keep_forecast(self, splits: Splits, values: dict[str, Any]) -> None:
        """Keep what a forecast reads of a run's data."""
        key = _forecast_key(splits)
        self._publish("forecasts", key, lambda work: write_json(work / _FACTS, values))

    def _opened(
        self,
        key: str,
        notes: list[str],
        left_out: dict[str, int],
        digests: Mapping[tuple[str, bool], str],
    ) -> Splits:
        folder = self._store.path("data", key)
        train, dev, test = (Examples.open(folder / f"{name}.arrow") for name in SPLITS)
        splits = Splits(train, dev, test, notes, left_out)
        splits.digests.update(digests)
        return splits

    def _sound(self, kind: str, key: str) -> bool:
        """Whether an artifact is there; one that is damaged is removed."""
        place = (kind, key)
        if place not in self._looked_at and self._store.has(kind, key):
            if self._store.damage(kind, key):
                with self._store.lock(kind, key):
                    self._discard_damaged(kind, key)
            self._looked_at.add(place)
        return self._store.has(kind, key)

    def _discard_damaged(self, kind: str, key: str) -> None:
        """Remove an artifact unless another process has made it again; its lock must be held."""
        if self._store.has(kind, key) and self._store.damage(kind, key):
            self._store.discard(kind, key)

    def _facts(self, kind: str, key: str) -> Any:
        if not self._sound(kind, key):
            return None
        return json.loads(self._store.read(kind, key, _FACTS))

    def _publish(self, kind: str, key: str, write: Callable[[Path], None]) -> None:
        """Publish what `write` writes into a folder, unless another process has done so."""
        with disk_errors(self._root):
            self._publish_whole(Store(self._root), kind, key, write)

    def _publish_whole(
        self, store: Store, kind: str, key: str, write: Callable[[Path], None]
    ) -> None:
        with store.lock(kind, key):
            self._discard_damaged(kind, key)
            if store.has(kind, key):
                return
            try:
                write(store.work(kind, key))
            except UserError:
                store.drop_work(kind, key)
                raise
            store.publish(kind, key, {"key": key})


def with_model(messages: list[str], model: str) -> list[str]:
    """Return kept messages with the model's name in them."""
    return [message.replace(_MODEL, model) for message in messages]


def _tokenized(
    splits: Splits, tokenizer: Any, limit: int, folder: Path, marks: Collection[Mark]
) -> TokenFacts:
    """Write splits as tokens into a folder; return what is known about them."""
    several = more_of_train(splits.train)
    with _all_cores():
        tables, cut = tokenize_splits(
            splits.parts | several, tokenizer, limit, marks=marks, folder=folder
        )
    others = [tables.pop(name) for name in several]
    errors, notes = look_for_same_tokens(splits, tables, _MODEL)
    if "words" in marks:
        more = look_for_words(splits, tables, _MODEL)
        errors, notes = errors + more[0], notes + more[1]
    notes += unwritable_notes(splits, tables, tokenizer, _MODEL)
    longest = max(map(longest_choice, tables.values()))
    digest = fingerprint([table.digest() for table in tables.values()])
    lengths = [token_lengths(table) for table in (tables["train"], *others)]
    # The longest rationale may be any of several.
    longest_of_train = max(lengths, key=lambda each: each.wholes)
    return TokenFacts(digest, cut, longest, longest_of_train, errors, notes)


def _key(request: object) -> str:
    libraries = {name: version(name) for name in _LIBRARIES}
    # Unicode's tables come with Python.
    return fingerprint([request, libraries, platform.python_version(), _CODE])


def _forecast_key(splits: Splits) -> str:
    return _key(["forecast", data_key(splits)])


def _code() -> str:
    """Return the digest of this package's code."""
    hashed = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


# When this is imported, since the files may be replaced later.
_CODE = _code()


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let tokenizers use all cores meanwhile."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
