"""Compares texts in Unicode's composed form, ignoring invisible characters at both ends.

The texts themselves are never changed: a model reads exactly what the user wrote.
"""

import hashlib
import re
import unicodedata
from functools import lru_cache

from knife.data.example import Example


def normal(text: str) -> str:
    """Return `text` for comparison: NFC, without blanks and invisible characters at its ends.

    Blanks are all Unicode whitespace, such as U+00A0; invisible characters are format characters,
    such as U+200B.
    """
    if text.isascii():
        # Composed already, and nothing in it is invisible but whitespace: much faster.
        return text.strip()
    text = unicodedata.normalize("NFC", text)
    first, last = 0, len(text)
    while first < last and _invisible(text[first]):
        first += 1
    while last > first and _invisible(text[last - 1]):
        last -= 1
    return text[first:last]


def look_alike(one: str, other: str) -> bool:
    """Whether two texts differ at most in ways that readers hardly notice: blanks, invisible
    characters, and compatibility forms such as full-width letters."""
    return _seen(one) == _seen(other)


def difference(one: str, other: str) -> str:
    """Describe where two texts first differ, by code point, after `normal`."""
    one, other = normal(one), normal(other)
    at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    at = min(len(one), len(other)) if at is None else at
    return f"character {at + 1} is {_name(one[at : at + 1])}, not {_name(other[at : at + 1])}"


def task_input_words(example: Example) -> tuple[str, ...]:
    """Return a key that is equal for questions with the same text and choices, ignoring case,
    spacing and order of choices."""
    return (_words(example.question), *_choice_words(example.choices))


def question_key(example: Example) -> bytes:
    """Return 16 bytes that are equal for questions with the same text and choices, and in practice
    only for these."""
    # No text of these has a line feed: words are joined by single blanks.
    joined = "\n".join(task_input_words(example))
    return hashlib.blake2b(joined.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def bare_words(text: str) -> str:
    """Return the words of a text in lower case, without punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


# Many examples share their choices.
@lru_cache(4096)
def _choice_words(choices: tuple[str, ...]) -> list[str]:
    return sorted(map(_words, choices))


def _words(text: str) -> str:
    if text.isascii():
        return " ".join(text.casefold().split())
    return " ".join(normal(text).casefold().split())


def _invisible(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) == "Cf"


def _seen(text: str) -> str:
    text = unicodedata.normalize("NFKC", text)
    return "".join(character for character in text if not _invisible(character))


def _name(character: str) -> str:
    """Format a character as its code point and name: U+00A0 (NO-BREAK SPACE)."""
    if not character:
        return "missing"
    name = unicodedata.name(character, "without a name")
    return f"U+{ord(character):04X} ({name})"
