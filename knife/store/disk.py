"""Messages for a user about a disk that is full or not writable."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from knife.core.errors import UserError

_REASONS = {
    errno.ENOSPC: "the disk is full; free space or give another store",
    errno.EDQUOT: "the disk quota is used up; free space or give another store",
    errno.EACCES: "it is not writable; give another store or change its permissions",
    errno.EPERM: "it is not writable; give another store or change its permissions",
    errno.EROFS: "it is on a read-only file system; give another store",
    errno.ENOTDIR: "a part of its path is a file; give another store",
    errno.EEXIST: "there is a file of that name; give another store",
}
# What safetensors and torch.save report for a full disk: neither raises an OSError.
_FULL = ("os error 28", "inline_container")


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn errors about a full or unwritable disk under `root` into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        if any(words in str(error) for words in _FULL):
            code = errno.ENOSPC
        if code not in _REASONS:
            raise
        raise UserError(f"store: {root}: {_REASONS[code]}") from error
