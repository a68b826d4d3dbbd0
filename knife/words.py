"""Numbers in sentences."""


def counted(number: int, word: str) -> str:
    """So many of something: `1 trial`, `2 trials`."""
    return f"{number} {word}{'s'[: number != 1]}"
