"""Where a model's files come from: the package, a local folder or the hub."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from knife.core.errors import UserError, nearest, raise_errors
from knife.models.files import FILES, damage

_ASSETS = Path(__file__).parent / "assets"
EMBEDDED = {
    name: _ASSETS / name.replace("-", "_") for name in ("tiny-t5", "tiny-bert", "tiny-llama")
}


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The location and identity of a model's files.

    Attributes:
        name: as given in the config.
        folder: where the files are on this machine.
        revision: the hub's commit, or None for local files.
        identity: equal for equal files: the hub's commit, or a digest of the folder.
    """

    name: str
    folder: Path
    revision: str | None
    identity: str

    def local(self) -> Path:
        """Return the folder on the calling machine, downloading it first if needed."""
        if self.folder.is_dir() or self.revision is None:
            return self.folder
        from huggingface_hub import snapshot_download

        files = list(FILES)
        return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=files))


def find_model(name: str, key: str) -> ModelSource:
    """Resolve a model of the package, a local folder or a hub id; `key` is the config key.

    Raises:
        UserError: there is no such model, it has no safetensors, or the hub is unreachable.
    """
    folder = EMBEDDED.get(name, Path(name).expanduser())
    if folder.is_dir():
        return ModelSource(name, folder.resolve(), None, _digest(folder, key))
    if folder.is_file():
        raise UserError(f"{key}: {name!r} is a file; give the model's folder")
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(
            f"{key}: {name!r} is neither an existing folder nor a hub id (OWNER/NAME); "
            f"{nearest(name, EMBEDDED)}"
        )
    return _download(name, key)


def _download(name: str, key: str) -> ModelSource:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        folder = Path(snapshot_download(name, allow_patterns=list(FILES)))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise UserError(f"{key}: the hub has no public model {name!r}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"{key}: {name!r} is not in the local hub cache and the hub cannot be reached; "
            f"copy the model's folder to this machine and give its path: {key}=/path/to/folder"
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{key}: {name!r} has no safetensors weights, the only ones that are read")
    # The cache names a snapshot's folder by its commit.
    return ModelSource(name, folder, folder.name, f"{name}@{folder.name}")


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
