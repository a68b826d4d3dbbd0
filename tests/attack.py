"""A file that runs a command when it is unpickled."""

from pathlib import Path


class Attack:
    """An object that runs a command when it is unpickled without restrictions."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, (f"touch {self.mark}",)
