"""What a column of answers holds, found out from all of its values, and never by guessing."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any, get_args

from knife.config.columns import AnswerForm
from knife.core.errors import UserError
from knife.data.line_errors import show
from knife.data.normal import normal

FORMS: tuple[AnswerForm, ...] = get_args(AnswerForm)
# Forms that fit nearly as many rows as the best one could be meant as well.
_NEARLY = 0.9
_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
# Value, choices, and the choices' labels, if they have any.
Answered = tuple[Any, Sequence[str], Sequence[str]]


def unanswered(value: Any, choices: Sequence[str] = ()) -> bool:
    """Whether a value says that the answer is unknown: nothing, or -1 where that is no choice."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    text = normal(str(value))
    return not text or (text in ("-1", "-1.0") and bool(choices) and text not in choices)


def index_of(form: AnswerForm, answered: Answered) -> int | None:
    """Return the index of the choice that a value names, read in one form; None if it names
    none."""
    value, choices, labels = answered
    text = _same(str(value))
    if form in ("index", "index1"):
        number = re.fullmatch(r"\d+", text)
        if isinstance(value, bool) or not number:
            return None
        index = int(text) - (form == "index1")
    elif form == "bool":
        known = [_YES.get(normal(choice).casefold()) for choice in choices]
        wanted = _YES.get(text.casefold())
        index = known.index(wanted) if wanted is not None and wanted in known else -1
    elif form == "letter":
        letter = re.fullmatch(r"\(?([A-Za-z])[).:]?", text)
        index = ord(letter[1].upper()) - ord("A") if letter else -1
    else:
        texts = [_same(one) for one in (choices if form == "text" else labels)]
        index = texts.index(text) if text in texts else -1
    return index if 0 <= index < len(choices) else None


def _same(text: str) -> str:
    """Return a text for comparison; of a whole number, without its decimals."""
    text = normal(text)
    return re.sub(r"^([+-]?\d+)\.0+$", r"\1", text)


def find_form(key: str, rows: Iterable[Answered]) -> AnswerForm:
    """Return the form in which a column names the right choices of all rows, or of most.

    Raises:
        UserError: none fits, or several do and mean different choices. `key` is the config key.
    """
    hits: Counter[AnswerForm] = Counter()
    unlike: dict[tuple[AnswerForm, AnswerForm], Answered] = {}
    odd: list[str] = []
    total = 0
    for answered in rows:
        if unanswered(answered[0], answered[1]):
            continue
        total += 1
        found = {form: index_of(form, answered) for form in FORMS}
        fits = [form for form in FORMS if found[form] is not None]
        hits.update(fits)
        if not fits:
            odd.append(show(answered[0]))
        for pair in combinations(fits, 2):
            if found[pair[0]] != found[pair[1]]:
                unlike.setdefault(pair, answered)
    if not total:
        raise UserError(f"{key}: no row has an answer")
    if hits["label"] == total:
        # Labels say what they mean, whatever else "2" could be.
        return "label"
    best = max(FORMS, key=lambda form: hits[form])
    if 2 * hits[best] < total:
        first = ", ".join(list(dict.fromkeys(odd))[:5])
        raise UserError(
            f"{key}: {len(odd):,} of {total:,} answers name no choice, among them {first}; "
            "expected the text, letter, label or index of a choice"
        )
    near = {form for form in FORMS if hits[form] >= _NEARLY * hits[best]}
    for pair, (value, choices, _) in unlike.items():
        # Choices that are letters are meant as such, if every answer is one of them.
        told = pair == ("text", "letter") and hits["text"] == total
        if near.issuperset(pair) and not told:
            raise UserError(
                f"{key}: {show(value)} for {show(list(choices))} could be {pair[0]} or {pair[1]}, "
                f"which mean different choices: say which (data.columns.answer_is={pair[0]})"
            )
    return best
