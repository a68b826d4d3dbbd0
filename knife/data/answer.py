"""Matches an answer to a choice, by its text or by its index from 0, and never by guessing."""

import re

from knife.data.line_errors import LineError, show
from knife.data.normal import difference, look_alike, normal


def find_answer(value: object, choices: list[str]) -> int | LineError:
    """Return the index of the choice that `value` names, or the error if it names none.

    A string is the text of a choice (see `knife.data.normal`), an integer is an index. If an
    integer is also the text of a choice, both must mean the same one. `choices` is [] if they are
    invalid themselves: then only the answer's type is checked.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        return _of_wrong_type(value)
    if not choices:
        return 0
    return _by_text(value, choices) if isinstance(value, str) else _by_index(value, choices)


def _by_text(value: str, choices: list[str]) -> int | LineError:
    if value in choices:
        return choices.index(value)
    normals = [normal(choice) for choice in choices]
    if normal(value) in normals:
        return normals.index(normal(value))
    said = f"answer: {show(value)} is not among the choices {show(choices)}"
    for choice in choices:
        if look_alike(value, choice):
            return LineError(
                f"{said}: it only looks like {show(choice)}, but {difference(value, choice)}",
                "an answer that only looks like a choice",
                once=True,
            )
        if normal(value).casefold() == normal(choice).casefold():
            hint = f"{said}; did you mean {show(choice)}?"
            return LineError(hint, "an answer in another case than its choice", once=True)
    bare = normal(value)
    if re.fullmatch(r"[+-]?\d+(\.0*)?", bare):
        hint = "a number in quotation marks is a text; an index has none, and counts from 0"
        return LineError(f"{said}; {hint}", "an index written as a text", once=True)
    letter = re.fullmatch(r"\(?([A-Za-z])[).:]?", bare)
    index = ord(letter[1].upper()) - ord("A") if letter else len(choices)
    if index < len(choices):
        hint = (
            f"letters are not accepted: for {show(bare)} write the choice's text "
            f"{show(choices[index])}, or its index {index}"
        )
        return LineError(f"{said}; {hint}", "a letter for an answer", once=True)
    return LineError(said, "an answer that is not among the choices")


def _by_index(value: int, choices: list[str]) -> int | LineError:
    last = len(choices) - 1
    same = next((n for n, choice in enumerate(choices) if _number(choice) == value), None)
    if same is not None and same != value:
        other = f"the index of {show(choices[value])}" if 0 <= value <= last else "no index"
        return LineError(
            f"answer: {show(value)} is the text of the choice {show(choices[same])}, but "
            f"{other} (from 0) in {show(choices)}; write the text of the choice that is meant, "
            "in quotation marks, in every line",
            "an integer that is a choice's text but not its index",
            once=True,
        )
    if 0 <= value <= last:
        return value
    hint = "; indices count from 0" if value == len(choices) else ""
    return LineError(
        f"answer: index must be from 0 to {last}, but got {show(value)}: {show(choices)}{hint}",
        "an index that no choice has",
        once=True,
    )


def _of_wrong_type(value: object) -> LineError:
    said = f"answer: must be one of the choices or its index, but got {show(value)}"
    if value is None:
        return LineError(said, "no answer", once=True)
    if isinstance(value, bool):
        said += "; write the text of the choice"
    elif isinstance(value, float):
        said += "; an index is an integer, such as 1"
    return LineError(said, "an answer of another type", once=True)


def _number(choice: str) -> float | None:
    """Return the number that a choice spells in digits, or None if it is not only a number."""
    if choice.isalpha():
        # Words, which are most choices, need no try; "inf" and "nan" equal no index.
        return None
    try:
        return float(normal(choice).replace(",", ""))
    except ValueError:
        return None
