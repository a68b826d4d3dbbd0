"""The fields of a line: the five that are read, and likely misnamings of them."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

KNOWN = ("id", "question", "choices", "answer", "rationale")
# Their names in other data sets, in lower case and without whitespace, `_` and `-`.
_OTHER_NAMES = {
    "id": ("qid", "uid", "guid", "questionid", "exampleid", "qno", "idx"),
    "question": ("questions", "questionstem", "stem", "query", "qtext", "questiontext", "sentence"),
    "choices": (
        "choice",
        "options",
        "option",
        "candidates",
        "alternatives",
        "answerchoices",
        "answeroptions",
        "choicelist",
        "choiceslist",
        "choicestext",
        "opts",
        "optionlist",
        "optionslist",
        "optionstext",
        "mcoptions",
        "possibleanswers",
        "answercandidates",
        "endings",
    ),
    "answer": (
        "answers",
        "label",
        "labels",
        "answerkey",
        "answerindex",
        "answeridx",
        "answertext",
        "correct",
        "correctanswer",
        "gold",
        "goldlabel",
        "goldanswer",
        "correctoption",
        "correctchoice",
        "target",
        "solution",
    ),
    "rationale": (
        "rationales",
        "explanation",
        "explanations",
        "explain",
        "reason",
        "reasoning",
        "reasons",
        "justification",
        "cot",
        "chainofthought",
        "freeflowexplanation",
        "abstractiveexplanation",
        "humanexplanation",
        "humanrationale",
        "explanationtext",
        "rationaletext",
    ),
}
# Fields that hold one choice each: option_a, choice1, opb, A, sol2.
_ONE_CHOICE = re.compile(
    r"(qop|op|opt|options?|choices?|cand|candidates?|alternatives?|answers?|sol|ending|distractor)"
    r"([a-h]|\d{1,2})|[a-h]"
)


def likely_field(name: str) -> str | None:
    """Return the known field that another name seems to mean, or None."""
    bare = _bare(name)
    for known in KNOWN:
        if bare == known or bare in _OTHER_NAMES[known]:
            return known
    # A typo, such as "ratoinale", but not "rationale_id".
    close = difflib.get_close_matches(bare, KNOWN, n=1, cutoff=0.8)
    return close[0] if close and abs(len(close[0]) - len(bare)) < 2 else None


def misnamed(record: Mapping[str, Any]) -> dict[str, str]:
    """Map each known field that the record lacks to the field that seems to replace it."""
    found: dict[str, str] = {}
    for name, value in record.items():
        if name in KNOWN or _nothing(value):
            continue
        known = likely_field(name)
        # A string named `option` or the like is not a list of choices.
        if known == "choices" and not isinstance(value, list | dict) and _bare(name) != known:
            continue
        # Of several, the one named like the field itself wins, such as "Answer" over "label".
        lacks = known and _nothing(record.get(known))
        if known and lacks and (known not in found or _bare(name) == known):
            found[known] = name
    return found


def choice_fields(record: Mapping[str, Any]) -> list[str]:
    """Return the fields that seem to hold one choice each, such as option_a and option_b."""
    if not _nothing(record.get("choices")):
        return []
    names = [name for name in record if name not in KNOWN and _ONE_CHOICE.fullmatch(_bare(name))]
    return names if len(names) > 1 else []


def unread(record: Mapping[str, Any]) -> list[str]:
    """Return the fields of a record that are not read."""
    return [name for name in record if name not in (*KNOWN, "group", "more_rationales")]


def _bare(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).casefold()


def _nothing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
