"""One command at a time in a place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from knife.core.errors import UserError


@contextmanager
def alone(folder: Path, option: str, place: Path, advice: str) -> Iterator[None]:
    """Hold the lock of a folder, which is made if missing, for as long as `place` is written.

    Raises:
        UserError: another command holds it, or the folder is not writable; `option` named the
            place, and `advice` is what to do instead of waiting.
    """
    lock = FileLock(folder / "lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{option}: another command is writing {place}: wait for it, or {advice}"
        ) from None
    except OSError as error:
        raise UserError(f"{option}: {place} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
