"""A minimal bucket interface for the store: read and write files by name below one url.

Works with S3, GCS and Azure through fsspec: `s3://bucket/prefix`, `gs://…`, `abfs://…`. Credentials
come from the environment, as the storage's own tools read them; a url with credentials is rejected.
"""

import hashlib
import importlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from knife.core.atomic import replacing
from knife.core.errors import UserError

log = logging.getLogger(__name__)

# By protocol: the package that fsspec needs, and the extra of this package that installs it.
_PACKAGES = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gs"),
    "gcs": ("gcsfs", "gs"),
    "abfs": ("adlfs", "abfs"),
    "abfss": ("adlfs", "abfs"),
    "az": ("adlfs", "abfs"),
}
# For testing, or for a mounted file system: no package needed.
_LOCAL = ("file", "local")
# Pauses between tries, in seconds: a transient failure costs only the wait.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
# After a bucket stays unreachable, all threads of the process try just once per call for this long.
_AWAY_SECONDS = 60.0
_away_until: dict[str, float] = {}
# Files transferred at a time.
_PARALLEL = 8
T = TypeVar("T")


def is_url(store: str | Path) -> bool:
    """Whether a store is a bucket rather than a folder."""
    return "://" in str(store)


def artifact_place(url: str) -> tuple[str, str, str]:
    """Split the url of an artifact, or of the model in it, into store, kind and key.

    Raises:
        UserError: it is not the url of an artifact.
    """
    address, *place = url.rstrip("/").removesuffix("/model").rsplit("/", 2)
    if not is_url(address):
        raise UserError(
            f"STUDENT: {url} is not the url of a student; give all of it: STORE/student/KEY"
        )
    kind, key = place
    return address, kind, key


def cache_folder(url: str) -> Path:
    """Return this host's folder for files read from a bucket and for work in progress."""
    cache = Path(os.environ.get("KNIFE_CACHE") or "~/.cache/knife").expanduser().resolve()
    return cache / "stores" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def url_errors(url: str) -> list[str]:
    """Return why a url cannot be used as a bucket, as far as is known without a request."""
    parts = urlsplit(url)
    if "@" in parts.netloc and not parts.scheme.startswith("abfs"):
        # Printing the url itself would reveal the credentials.
        return [
            f"store: the {parts.scheme} url contains credentials; set them in the environment "
            "instead, as the storage's own tools read them"
        ]
    if ":" in parts.netloc.rpartition("@")[0] or parts.query or parts.fragment:
        return [
            f"store: the {parts.scheme} url has more than bucket and prefix; give "
            f"{parts.scheme}://BUCKET/PREFIX, and set keys in the environment"
        ]
    if parts.scheme not in (*_PACKAGES, *_LOCAL):
        return [
            f"store: {parts.scheme}:// is not a supported storage; give a folder, or s3://, gs:// "
            "or abfs://"
        ]
    if parts.scheme in _PACKAGES:
        package, extra = _PACKAGES[parts.scheme]
        try:
            importlib.import_module(package)
        except ImportError:
            return [
                f"store: {parts.scheme}:// needs the package {package}: "
                f"pip install 'knife[{extra}]' (or {package}), on every host"
            ]
        if not parts.netloc:
            return [f"store: {url} names no bucket; give {parts.scheme}://BUCKET/PREFIX"]
    return []


class Bucket:
    """Files by name below a url. Every method may be called from any thread.

    Raises:
        UserError: on construction, if the url cannot be a bucket; by every method, if the bucket
            does not exist or access is denied.
        OSError: by every method, if the bucket cannot be reached after all retries.
    """

    def __init__(self, url: str) -> None:
        errors = url_errors(url)
        if errors:
            raise UserError(*errors)
        self.url = url.rstrip("/")

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        scheme, options = urlsplit(self.url).scheme, dict[str, Any]()
        if scheme in _LOCAL:
            options = {"auto_mkdir": True}
        elif _PACKAGES[scheme][0] == "s3fs":
            # s3fs and `_try` already retry: a third level of retries would take minutes.
            options = {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 10}}
        # Other hosts write too, so a cached listing may be stale.
        fs, path = url_to_fs(self.url, use_listings_cache=False, **options)
        return fs, path.rstrip("/")

    def __reduce__(self) -> tuple[type["Bucket"], tuple[str]]:
        return type(self), (self.url,)

    def errors(self) -> list[str]:
        """Return why it cannot be read; empty if it can. Writes nothing."""
        try:
            self._try(lambda fs, root: fs.info(f"{root}/runs"), pauses=_PAUSES[:1])
        except UserError as error:
            return error.errors
        except FileNotFoundError:
            return []
        except OSError as error:
            return [f"store: {error}"]
        return []

    def size(self, name: str) -> int | None:
        """Return the size of a file in bytes, or None if it does not exist."""
        try:
            return self._try(lambda fs, root: int(fs.info(f"{root}/{name}")["size"]))
        except FileNotFoundError:
            return None

    def existing(self, names: Iterable[str]) -> set[str]:
        """Return those of the names that are files, asking for several at a time."""
        asked = list(names)
        sizes = self._each(self.size, [(name,) for name in asked])
        return {name for name, size in zip(asked, sizes, strict=True) if size is not None}

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, or None if it does not exist."""
        try:
            return self._try(lambda fs, root: bytes(fs.cat_file(f"{root}/{name}")))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small file atomically."""
        self._try(lambda fs, root: fs.pipe_file(f"{root}/{name}", content))

    def upload(self, files: Iterable[tuple[Path, str]]) -> None:
        """Copy files of this host into the bucket under the given names."""
        self._each(
            lambda path, name: self._try(lambda fs, root: fs.put_file(str(path), f"{root}/{name}")),
            [(path, name) for path, name in files],
        )

    def download(self, files: Iterable[tuple[str, Path]]) -> None:
        """Copy files to this host, each one atomically.

        Raises:
            FileNotFoundError: one of them is not in the bucket.
        """

        def one(name: str, path: Path) -> None:
            part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
            with replacing(path, part):
                self._try(lambda fs, root: fs.get_file(f"{root}/{name}", str(part)))

        self._each(one, list(files))

    def names(self, folder: str) -> dict[str, int]:
        """Return the sizes in bytes of all files below a folder, by their names relative to it."""

        def ask(fs: Any, root: str) -> dict[str, int]:
            inside = f"{root}/{folder}/"
            found = fs.find(inside.rstrip("/"), detail=True).items()
            return {
                path.removeprefix(inside): int(about["size"])
                for path, about in found
                if path.startswith(inside)
            }

        try:
            return self._try(ask)
        except FileNotFoundError:
            return {}

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; missing ones are ignored."""

        def one(name: str) -> None:
            with suppress(FileNotFoundError):
                self._try(lambda fs, root: fs.rm_file(f"{root}/{name}"))

        self._each(one, [(name,) for name in names])

    def remove_folder(self, folder: str) -> None:
        """Remove all files below a folder."""
        self.remove(f"{folder}/{name}" for name in self.names(folder))

    def _each(self, work: Callable[..., T], items: list[tuple[Any, ...]]) -> list[T]:
        if len(items) < 2:
            return [work(*item) for item in items]
        with ThreadPoolExecutor(_PARALLEL) as pool:
            return [done.result() for done in [pool.submit(work, *item) for item in items]]

    def _try(self, ask: Callable[[Any, str], T], pauses: tuple[float, ...] = _PAUSES) -> T:
        """Call `ask`, retrying transient failures; try once if retries have just failed."""
        if time.monotonic() < _away_until.get(self.url, 0.0):
            pauses = ()
        for pause in (*pauses, None):
            try:
                return ask(*self._opened)
            except Exception as error:
                if message := self._user_error(error):
                    raise UserError(message) from error
                if isinstance(error, FileNotFoundError):
                    raise
                if pause is None:
                    _away_until[self.url] = time.monotonic() + _AWAY_SECONDS
                    raise OSError(
                        f"the bucket {self.url} cannot be reached: {_words(error)}; the same "
                        "command resumes once it can"
                    ) from error
                log.info("%s: %s; again in %s s", self.url, _words(error), pause)
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _user_error(self, error: Exception) -> str | None:
        """Return the message for an error that the user can fix and retrying would not."""
        if isinstance(error, FileNotFoundError) and "bucket does not exist" in str(error):
            return f"store: {self.url}: this bucket does not exist; create it, or correct the url"
        name = type(error).__name__
        if "Credential" in name or "DefaultCredentials" in str(error) or "Anonymous" in str(error):
            return (
                f"store: {self.url}: no credentials found; set them in the environment of every "
                "host, as the storage's own tools read them"
            )
        if isinstance(error, PermissionError) or "Forbidden" in str(error):
            return (
                f"store: {self.url}: access denied ({_words(error)}); give these credentials "
                "permission to list, read, write and delete there"
            )
        return None


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def new_attempt() -> str:
    """Return a unique name for an attempt to make an artifact."""
    return uuid.uuid4().hex[:12]
