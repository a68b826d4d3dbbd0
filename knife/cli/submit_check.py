"""Checks of a job before it is sent, so that a typo is found here and not on the cluster."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from knife.cluster.capacity import batch_errors
from knife.config.overrides import flat, merge, read_overrides, read_yaml
from knife.config.recipe_files import find_config
from knife.config.run import read
from knife.core.words import command_line
from knife.data.known import PREFIX
from knife.data.source import KNOWN_SOURCES
from knife.launch.working_dir import WorkingDir
from knife.models.source import NAMES
from knife.track.secrets import redact
from knife.tune.search.sweep_file import read_checked_sweep

_TRACKING = "MLFLOW_TRACKING_URI"
_GIVE = "put it there, or give a path that every host of the cluster can read"
_NAMES = {*KNOWN_SOURCES, *NAMES}


@dataclass(frozen=True)
class Checked:
    """A command that a cluster can be asked to run.

    Attributes:
        name: the run's or the sweep's.
        paths: files and folders that it reads, with the config key or argument that names each.
        store: its artifact store.
        uri: its track.uri.
        errors: why it must not be sent.
    """

    name: str
    paths: list[tuple[str, str]]
    store: str
    uri: str | None
    errors: list[str]

    @property
    def environment(self) -> dict[str, str]:
        """The variables the job gets from our environment: the server, if the config has none."""
        ours = os.environ.get(_TRACKING, "")
        sent = "://" in ours and not ours.startswith(("sqlite:", "file:")) and redact(ours) == ours
        return {_TRACKING: ours} if sent and not self.uri else {}

    @property
    def notes(self) -> list[str]:
        """What a user should know, one sentence each."""
        if self.uri or not os.environ.get(_TRACKING) or self.environment:
            return []
        return [
            f"{_TRACKING} is not sent, since it contains a password or is a file on this machine; "
            "the job uses that of the cluster's hosts"
        ]

    @property
    def mlflow(self) -> str:
        """Where the job is recorded."""
        if uri := self.uri or self.environment.get(_TRACKING):
            return redact(uri)
        return f"{command_line('knife', 'ui', '--store', self.store)}, on a host that has the store"

    def stays(self, folder: Path) -> list[str]:
        """Return what is not to be sent, as git patterns: a store in the working directory."""
        store = Path(self.store).expanduser()
        inside = store.is_relative_to(folder) and store != folder
        return [f"/{store.relative_to(folder).as_posix()}"] if inside else []

    def missing(self, parcel: WorkingDir) -> list[str]:
        """Return errors for paths that the job will not find in its working directory."""
        return [error for key, path in self.paths for error in _missing(key, path, parcel)]


def check(words: list[str], values: dict[str, Any], folder: Path) -> Checked:
    """Check a command with arguments and options `values`, as a job in `folder` would read them.

    Raises:
        UserError: with every error in the config or of the sweep.
    """
    overrides = values["overrides"] or []
    with contextlib.chdir(folder):
        if words[0] == "run":
            found = _run(values["config"], overrides)
        else:
            found = _sweep(values["sweep"], overrides)
    errors = [
        f"{redact(word)}: contains a password, and the dashboard shows a job's command to "
        "everyone; put it in the config file, or in the environment of the cluster's hosts"
        for word in words
        if redact(word) != word
    ]
    if not values["dry_run"]:
        errors += _lost(found)
    return replace(found, errors=found.errors + errors)


def _run(name: str, overrides: list[str]) -> Checked:
    path = find_config(name)
    config = read(path, overrides)
    paths = _named(merge(read_yaml(path), read_overrides(overrides)))
    if str(path) == str(Path(name).expanduser()):
        paths = [("CONFIG", name), *paths]
    uri = config.track.uri if config.track else None
    return Checked(config.name, paths, config.store, uri, batch_errors(config))


def _sweep(path: Path, overrides: list[str]) -> Checked:
    space = read_checked_sweep(path, overrides)
    values = merge(space.base, read_overrides(space.sweep.set))
    beside = path.parent / space.sweep.base
    base = beside if beside.is_file() else find_config(space.sweep.base)
    paths = [("SWEEP", str(path))]
    if base == beside or base == Path(space.sweep.base):
        paths.append(("base", str(base)))
    for source in (read_yaml(path), read_yaml(base), read_overrides(overrides)):
        paths += _named(source)
    uri = (values.get("track") or {}).get("uri")
    return Checked(space.sweep.name, paths, values.get("store", "./knife-store"), uri, [])


def _named(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the files and folders that a config or a search space names, with their keys."""
    found = []
    for key, leaf in flat(values).items():
        for name in ("data.source", "model.teacher", "model.student"):
            if name in key:
                found += [(key, v) for v in (leaf if isinstance(leaf, list) else [leaf])
                          if isinstance(v, str) and v not in _NAMES
                          and not v.startswith(PREFIX)]  # fmt: skip
    return found


def _missing(key: str, path: str, parcel: WorkingDir) -> Iterator[str]:
    if path.startswith(("/", "~")):
        # It may exist only on the cluster.
        return
    full = Path(os.path.normpath(parcel.folder / path))
    if not full.is_relative_to(parcel.folder):
        yield (
            f"{key}: {path} is outside the working directory, which is all that is sent; " + _GIVE
        )
        return
    inside = full.relative_to(parcel.folder)
    if full.exists() and not parcel.holds(PurePosixPath(inside).as_posix()):
        yield (
            f"{key}: {path} is ignored (.gitignore, .rayignore, or by name) and not sent; " + _GIVE
        )
    elif not full.exists() and (path.startswith(".") or key.endswith("source")):
        yield f"{key}: {path} is missing in the working directory {parcel.folder}; " + _GIVE


def _lost(found: Checked) -> Iterator[str]:
    """Yield errors for results in the job's working directory, which Ray may remove at any time."""
    if "://" not in found.store and not found.store.startswith(("/", "~")):
        yield (
            f"store: {found.store} would be in the job's own copy of the working directory, which "
            "Ray removes; give a folder that all hosts share, such as store=/shared/knife-store"
        )
    uri = found.uri or ""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        yield (
            f"track.uri: {uri} would be in the job's own copy of the working directory, which Ray "
            "removes; give a server, an absolute path, or null to record in the store"
        )
