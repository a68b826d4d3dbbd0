"""Turns one JSON object into an example, or reports everything that is wrong with it."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from knife.data.answer import find_answer
from knife.data.example import UNANSWERED, Example
from knife.data.fields import KNOWN, choice_fields, misnamed
from knife.data.line_errors import LineError, show
from knife.data.normal import normal

Record = Mapping[str, Any]
FORMAT = (
    '{"id": "…", "question": "…", "choices": ["…", "…"], '
    '"answer": text or index, "rationale": text or null}'
)


def read_example(record: object) -> tuple[Example | None, list[LineError]]:
    """Turn a decoded JSON value into an example, or return None and all its errors.

    Wrong choices that are equal are merged. The right one must be unique.
    """
    return _read(record, asked=False)


def read_question(record: object) -> tuple[Example | None, list[LineError]]:
    """Read a value like `read_example`, but with `answer` optional: it is then `UNANSWERED`.

    All choices must be unique, since a prediction names its choice by the index among them.
    """
    return _read(record, asked=True)


def read_identity(record: Record, errors: list[LineError]) -> str:
    """Return the id as text, or "" if it is invalid, adding to `errors`."""
    value = record.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(record, "id", errors, kinds="text or an integer")


def _read(record: object, *, asked: bool) -> tuple[Example | None, list[LineError]]:
    if not isinstance(record, dict):
        said = f"must be a JSON object {FORMAT}, but got {show(record)}"
        return None, [LineError(said, "no JSON object", once=True)]
    if wrapper := _wrapper(record):
        return None, [wrapper]
    # A question needs neither answer nor rationale.
    needed = ("id", "question", "choices") if asked else KNOWN
    wrong = {known: name for known, name in misnamed(record).items() if known in needed}
    errors = [_misnamed(known, name) for known, name in wrong.items()]
    identity = "" if "id" in wrong else read_identity(record, errors)
    question = "" if "question" in wrong else _text(record, "question", errors)
    known = not asked or record.get("answer") is not None
    if record.get("choices") is not None:
        choices, answer = _choices(record, errors), UNANSWERED
        if known and "answer" not in wrong:
            answer = _answer(record, choices, errors)
        if asked:
            errors += (
                [_two_equal(choices)] if len(set(_normals(tuple(choices)))) < len(choices) else []
            )
        elif answer != UNANSWERED:
            choices, answer = _merged(choices, answer, errors)
    else:
        columns = choice_fields(record)
        errors += [_in_columns(columns)] if columns and "choices" not in wrong else []
        choices, answer = [], 0 if known else UNANSWERED
        if known and not {"answer", "choices"} & wrong.keys():
            kinds = "text, since there are no choices"
            choices = [_text(record, "answer", errors, kinds=kinds)]
    rationale = record.get("rationale")
    if rationale is not None:
        rationale = _text(record, "rationale", errors, may_be_empty=True)
    group = record.get("group")
    if group is not None and (isinstance(group, bool) or not isinstance(group, str | int)):
        said = f"group: must be text or an integer, but got {show(group)}"
        errors.append(LineError(said, "a group of another type", once=True))
    elif isinstance(group, str) and not _encodable(group):
        said = f"group: holds half of a surrogate pair: {show(group)}"
        errors.append(LineError(said, "half of a surrogate pair in group"))
    more = _more_rationales(record, rationale, errors)
    if errors:
        return None, errors
    rationale = rationale if rationale and rationale.strip() else None
    group = None if group is None else str(group)
    return Example(identity, question, tuple(choices), answer, rationale, group, more), []


def _more_rationales(record: Record, first: object, errors: list[LineError]) -> tuple[str, ...]:
    """Return the further rationales, or () if they are invalid, adding to `errors`."""
    value = record.get("more_rationales")
    if value is None or value == []:
        return ()
    if not isinstance(value, list) or not all(
        isinstance(text, str) and text.strip() and _encodable(text) for text in value
    ):
        said = (
            f"more_rationales: must be a list of texts, none of them empty, but got {show(value)}"
        )
        errors.append(LineError(said, "more_rationales of another type", once=True))
    elif not isinstance(first, str) or not first.strip():
        said = "more_rationales: are given, but rationale is not: give the first of them there"
        errors.append(LineError(said, "more_rationales without a rationale", once=True))
    else:
        return tuple(value)
    return ()


def _wrapper(record: Record) -> LineError | None:
    """Return the error for an object that contains examples instead of being one."""
    if record.keys() & set(KNOWN):
        return None
    for name, value in record.items():
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            said = f"is not an example, but has a list of {len(value)} objects in {show(name)}"
            return LineError(f"{said}: write one object a line: {FORMAT}", "a list of objects")
    return None


def _misnamed(known: str, name: str) -> LineError:
    return LineError(
        f"{known}: is missing, but there is {show(name)}, which is not read: rename it to "
        f"{show(known)}, or remove it",
        f"{show(name)} for {known}",
        once=True,
    )


def _in_columns(names: list[str]) -> LineError:
    return LineError(
        f"choices: is missing, but there are {', '.join(map(show, names))}, which are not read: "
        'write them as one list, "choices": ["…", "…"], or remove them',
        "a field for each choice",
        once=True,
    )


def _text(
    record: Record,
    field: str,
    errors: list[LineError],
    *,
    kinds: str = "text",
    may_be_empty: bool = False,
) -> str:
    """Return the text of a field, or "" if it is invalid, adding to `errors`."""
    value = record.get(field)
    if field not in record:
        errors.append(LineError(f"{field}: is missing", f"no {field}", once=True))
    elif not isinstance(value, str):
        hint = "; join them into one text" if isinstance(value, list) else ""
        said = f"{field}: must be {kinds}, but got {show(value)}{hint}"
        errors.append(LineError(said, f"{field} of another type", once=True))
    elif not may_be_empty and not normal(value):
        errors.append(LineError(f"{field}: is empty", f"no {field}", once=True))
    elif not _encodable(value):
        said = f"{field}: holds half of a surrogate pair: {show(value)}"
        errors.append(LineError(said, f"half of a surrogate pair in {field}"))
    else:
        return value
    return ""


def _choices(record: Record, errors: list[LineError]) -> list[str]:
    """Return the choices, or [] if they are invalid, adding to `errors`."""
    value = record["choices"]
    if not isinstance(value, list) or not all(isinstance(choice, str) for choice in value):
        said = f"choices: must be a list of texts, but got {show(value)}{_choices_hint(value)}"
        errors.append(LineError(said, "choices of another type", once=True))
    elif len(value) < 2:
        said = f"choices: must be two or more, but got {show(value)}"
        errors.append(LineError(said, "fewer than two choices"))
    elif not all(_normals(tuple(value))):
        errors.append(LineError(f"choices: one is empty: {show(value)}", "an empty choice"))
    elif not _encodable("".join(value)):
        said = f"choices: one holds half of a surrogate pair: {show(value)}"
        errors.append(LineError(said, "half of a surrogate pair in choices"))
    else:
        return value
    return []


def _choices_hint(value: object) -> str:
    """Return a hint on what to write instead of choices of another type."""
    if isinstance(value, str):
        return '; write ["…", "…"]'
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        return '; write the list in "text" alone, and the answer as text or index'
    if isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(each, dict | list) for each in value)
    ):
        return "; write the texts alone, and the answer as text or index"
    return "; write numbers in quotation marks" if isinstance(value, list) else ""


def _answer(record: Record, choices: list[str], errors: list[LineError]) -> int:
    """Return the index of the answer, or `UNANSWERED` if it is invalid, adding to `errors`."""
    if "answer" not in record:
        errors.append(LineError("answer: is missing", "no answer", once=True))
        return UNANSWERED
    found = find_answer(record["answer"], choices)
    if isinstance(found, int):
        return found
    errors.append(found)
    return UNANSWERED


def _merged(choices: list[str], answer: int, errors: list[LineError]) -> tuple[list[str], int]:
    """Return the choices without repeated wrong ones, and the answer's index among them."""
    normals = _normals(tuple(choices))
    if len(set(normals)) == len(choices):
        return choices, answer
    first = [normals.index(text) for text in normals]
    if first.count(first[answer]) > 1:
        errors.append(_two_equal(choices, " and are the answer"))
        return choices, answer
    kept = sorted(set(first))
    return [choices[n] for n in kept], kept.index(answer)


# Many examples share their choices.
@lru_cache(4096)
def _normals(choices: tuple[str, ...]) -> list[str]:
    return [normal(choice) for choice in choices]


def _two_equal(choices: list[str], which: str = "") -> LineError:
    return LineError(
        f"choices: two are equal{which}: {show(choices)}", f"two choices that are equal{which}"
    )


def _encodable(text: str) -> bool:
    """Whether text is free of lone surrogates (`\\ud800`), which JSON can hold but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
