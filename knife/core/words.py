"""Numbers and commands in sentences."""

import re
import shlex


def counted(number: int, word: str) -> str:
    """So many of something: `1 trial`, `2 trials`."""
    return f"{number} {word}{'s'[: number != 1]}"


def command_line(*words: object) -> str:
    """A command as a shell takes it, whatever its paths are called."""
    return shlex.join(_argument(str(word)) for word in words)


def _argument(word: str) -> str:
    """No option, though its name begins like one."""
    return f"./{word}" if word.startswith("-") and not re.fullmatch("--[a-z-]+", word) else word
