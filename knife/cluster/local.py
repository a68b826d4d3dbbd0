"""What Ray needs of this machine to start on it: short paths for sockets, room for its token."""

import os
from pathlib import Path

# Of a Unix socket's path, on Linux.
_PATH_BYTES = 107
_FOLDERS = ("RAY_TMPDIR", "TMPDIR")


def ray_folder() -> Path:
    """Where Ray keeps its sessions: in RAY_TMPDIR, TMPDIR or /tmp, whichever is set first."""
    return Path(_folder()[1]).absolute() / "ray"


def local_faults() -> list[str]:
    """Why Ray could not start here; nothing is written."""
    return [*_folder_faults(), *_token_faults()]


def _folder() -> tuple[str, str]:
    """The variable that is set first, and the folder it names."""
    found = ((name, os.environ.get(name, "").strip()) for name in _FOLDERS)
    return next(((name, value) for name, value in found if value), ("RAY_TMPDIR", "/tmp"))


def _folder_faults() -> list[str]:
    name, _ = _folder()
    folder = ray_folder()
    # As Ray names the longest of its sockets.
    session = f"session_2000-01-01_00-00-00_000000_{os.getpid()}"
    size = len(os.fsencode(folder.parent))
    room = _PATH_BYTES - len(os.fsencode(folder / session / "sockets" / "plasma_store")) + size
    if size > room:
        return [
            f"{name}: the path of {folder.parent} has {size} bytes, but Ray's sockets in it leave "
            f"room for {room}; set RAY_TMPDIR to a shorter one, such as /tmp"
        ]
    if not _can_write(folder):
        return [
            f"{name}: {folder}, which Ray keeps its sessions in, cannot be written; set RAY_TMPDIR "
            "to another folder, such as /tmp"
        ]
    return []


def _token_faults() -> list[str]:
    """Ray writes the token of its first session here."""
    mode = os.environ.get("RAY_AUTH_MODE", "token").lower()
    given = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    folder = Path.home() / ".ray"
    if mode != "token" or given or (folder / "auth_token").is_file() or _can_write(folder):
        return []
    return [
        f"HOME: {folder}, where Ray keeps its token, cannot be written; set HOME to a folder that "
        "can, or give a token of 32 bytes or more in RAY_AUTH_TOKEN"
    ]


def _can_write(folder: Path) -> bool:
    """Whether a folder, or the first one above it that is there, can be written."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
