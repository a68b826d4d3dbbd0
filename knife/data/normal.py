"""When two texts count as the same: in Unicode's composed form, without what is invisible around.

Texts themselves are never changed: what a user wrote is what a model reads.
"""

import unicodedata

from knife.data.example import Example


def normal(text: str) -> str:
    """`text` as it is compared: NFC, without blanks and invisible characters at its ends.

    Blanks are all of Unicode's, such as U+00A0; invisible are format characters, such as U+200B.
    """
    text = unicodedata.normalize("NFC", text)
    first, last = 0, len(text)
    while first < last and _invisible(text[first]):
        first += 1
    while last > first and _invisible(text[last - 1]):
        last -= 1
    return text[first:last]


def look_alike(one: str, other: str) -> bool:
    """Whether two texts differ only in what a reader hardly sees: blanks, invisible characters,
    and compatibility forms such as full-width letters."""
    return _seen(one) == _seen(other)


def difference(one: str, other: str) -> str:
    """Where two texts first differ, by code point; both without what is invisible at their ends."""
    one, other = normal(one), normal(other)
    at = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    at = min(len(one), len(other)) if at is None else at
    return f"character {at + 1} is {_name(one[at : at + 1])}, not {_name(other[at : at + 1])}"


def task_input_words(example: Example) -> tuple[str, ...]:
    """The same for all questions of one text with the same choices, in whatever case, spacing and
    order of choices."""
    return (_words(example.question), *sorted(map(_words, example.choices)))


def _words(text: str) -> str:
    return " ".join(normal(text).casefold().split())


def _invisible(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) == "Cf"


def _seen(text: str) -> str:
    text = unicodedata.normalize("NFKC", text)
    return "".join(character for character in text if not _invisible(character))


def _name(character: str) -> str:
    """A character by its number and name: U+00A0 (NO-BREAK SPACE)."""
    if not character:
        return "missing"
    name = unicodedata.name(character, "without a name")
    return f"U+{ord(character):04X} ({name})"
