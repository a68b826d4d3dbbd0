"""What a language model answered, and what of it is a rationale and what its own answer."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from knife.core import strict_json
from knife.data.example import Example
from knife.data.normal import bare_words
from knife.stats.text_match import exact_match

# What models that reason first write between these is not part of the answer; the first may be in
# the model's template already.
_THOUGHTS_BEGIN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_THOUGHTS_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_OWN_ANSWER = re.compile(
    r"^\W*(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:the|my|final|correct|right|best)\s+)*answer\b"
    r"(?:\s+is\b)?\s*\**\s*:?\s*(.*)$",
    re.IGNORECASE,
)
_LATEX = re.compile(r"\\(?:boxed|text|textbf|mathbf|mathrm)\{([^{}]*)\}")
_LABEL = re.compile(r"^\W*(?:explanation|rationale|reasoning)\W*:\W*", re.IGNORECASE)
_LETTER = re.compile(r"\(?([A-Za-z])(?:[).:]|\Z)")
_REFUSAL = re.compile(
    r"^\W*(?:(?:i['\u2019]?m|i\s+am)\s+(?:very\s+|so\s+)?sorry\b|sorry\b|i\s+apologi[sz]e\b"
    r"|(?:unfortunately,?\s+)?i\s+(?:can(?:['\u2019]?t|\s*not)|am\s+(?:not\s+able|unable)|won['\u2019]?t)\s+"
    r"(?:to\s+)?(?:help|assist|answer|provide|do|comply|fulfil|engage|discuss|explain|write)"
    r"|as\s+an?\s+(?:ai|artificial|language)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a request, kept as it was.

    Attributes:
        key: the request's.
        text: what was written.
        finish: why the model stopped: `stop`, `length` (cut off), `content_filter`, or a server's
            own word.
        limit: the most tokens that it might write.
        read, written: numbers of tokens.
        counted: whether the server counted them; else they are estimates.
        model: the model as the server names it.
        time: when it came, in seconds since 1970.
    """

    key: str
    text: str
    finish: str
    limit: int
    read: int
    written: int
    counted: bool
    model: str
    time: float

    def line(self) -> str:
        """Return the answer as a line of JSON."""
        return strict_json.dumps(asdict(self), ensure_ascii=True)

    @staticmethod
    def parse(values: Mapping[str, Any]) -> "Answer":
        """Return the answer that `line` wrote."""
        return Answer(**values)

    @property
    def cut(self) -> bool:
        """Whether the model might have written more."""
        return self.finish == "length"

    @property
    def bare(self) -> str:
        """The text without a model's thoughts before it."""
        last = _THOUGHTS_END.split(self.text)[-1]
        return _THOUGHTS_BEGIN.split(last)[0].strip()

    @property
    def refused(self) -> bool:
        """Whether the model or its server declined to answer."""
        return self.finish == "content_filter" or bool(_REFUSAL.match(self.bare))


def rationale_of(text: str) -> str:
    """Return the lines before a model's own answer, or else after it, joined by blanks."""
    lines = text.splitlines()
    own = _own_line(lines)
    if own is None:
        return plain(text)
    return plain("\n".join(lines[:own])) or plain("\n".join(lines[own + 1 :]))


def plain(text: str) -> str:
    """Return a text in one line, without a label such as `Explanation:` before it."""
    return _LABEL.sub("", " ".join(text.split()))


def is_right(text: str, example: Example) -> bool:
    """Whether a model's own answer, on the last line that starts so, is the right one."""
    lines = text.splitlines()
    own = _own_line(lines)
    if own is None:
        return False
    match = _OWN_ANSWER.match(lines[own])
    said = match[1] if match else ""
    if not said and own + 1 < len(lines):
        said = lines[own + 1]
    while said != (inner := _LATEX.sub(r"\1", said)):
        said = inner
    said = said.strip("*_`\"'$ \t")
    if example.open:
        return exact_match(said, example.choices[0])
    return _chosen(said, example) == example.answer


def _own_line(lines: list[str]) -> int | None:
    """Return the number of the last line that holds an answer."""
    found = [number for number, line in enumerate(lines) if _OWN_ANSWER.match(line)]
    return found[-1] if found else None


def _chosen(said: str, example: Example) -> int | None:
    """Return the index of the choice that was named by its text, its letter or both."""
    words = [bare_words(choice) or choice for choice in example.choices]
    own = bare_words(said) or said
    if own in words:
        return words.index(own)
    if letter := _LETTER.match(said):
        index = ord(letter[1].upper()) - ord("A")
        rest = bare_words(said[letter.end() :])
        if index < len(words) and rest in ("", words[index]):
            return index
    # "yes, they do": one choice stands at the beginning, and no other anywhere.
    named = [n for n, word in enumerate(words) if word and f" {word} " in f" {own} "]
    if len(named) == 1 and f"{own} ".startswith(f"{words[named[0]]} "):
        return named[0]
    return None
