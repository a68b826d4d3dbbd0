"""What Ray needs to start on this machine: short paths for sockets, and a place for its token."""

import os
from pathlib import Path

# Maximum length of a Unix socket's path on Linux.
_PATH_BYTES = 107
_FOLDERS = ("RAY_TMPDIR", "TMPDIR")


def ray_folder() -> Path:
    """Return the folder of Ray's sessions, in the first of RAY_TMPDIR and TMPDIR that is set, or
    /tmp."""
    return Path(_folder()[1]).absolute() / "ray"


def local_errors() -> list[str]:
    """Return why Ray could not start here, without writing anything."""
    return [*_folder_errors(), *_token_errors()]


def _folder() -> tuple[str, str]:
    """Return the first variable that is set, and the folder it names."""
    found = ((name, os.environ.get(name, "").strip()) for name in _FOLDERS)
    return next(((name, value) for name, value in found if value), ("RAY_TMPDIR", "/tmp"))


def _folder_errors() -> list[str]:
    name, _ = _folder()
    folder = ray_folder()
    # Ray's naming of its longest socket path.
    session = f"session_2000-01-01_00-00-00_000000_{os.getpid()}"
    size = len(os.fsencode(folder.parent))
    room = _PATH_BYTES - len(os.fsencode(folder / session / "sockets" / "plasma_store")) + size
    if size > room:
        return [
            f"{name}: the path {folder.parent} has {size} bytes, but Ray's sockets below it allow "
            f"at most {room}; set RAY_TMPDIR to a shorter one, such as /tmp"
        ]
    if not _can_write(folder):
        return [
            f"{name}: {folder}, where Ray keeps its sessions, is not writable; set RAY_TMPDIR to "
            "another folder, such as /tmp"
        ]
    return []


def _token_errors() -> list[str]:
    """Return an error if Ray cannot write its token, which its first session creates."""
    mode = os.environ.get("RAY_AUTH_MODE", "token").lower()
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    folder = Path.home() / ".ray"
    if mode != "token" or given or (folder / "auth_token").is_file() or _can_write(folder):
        return []
    return [
        f"HOME: {folder}, where Ray keeps its token, is not writable; set HOME to a writable "
        "folder, or RAY_AUTH_TOKEN to a token of 32 bytes or more"
    ]


def _can_write(folder: Path) -> bool:
    """Whether a folder, or its nearest existing parent, is writable."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
