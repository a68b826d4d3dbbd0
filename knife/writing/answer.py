"""What a language model answered, and what of it is a rationale and what its own answer."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from knife.core import strict_json
from knife.data.example import Example
from knife.data.normal import bare_words, normal
from knife.stats.text_match import exact_match

# What models that reason first write between these is not part of the answer; the first may be in
# the model's template already.
_THOUGHTS_BEGIN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_THOUGHTS_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
# "Answer: …", "**Answer** …", "So the correct answer is …"; not "Answer choices such as …".
_OWN_ANSWER = re.compile(
    r"^\W*(?:(?:so|thus|hence|therefore),?\s+)?(?:(?:the|my|final|correct|right|best)\s+)*answer"
    r"(?:\s+is\b\W*?|\W*:|\s*\*\*|\s*$)\s*(.*)$",
    re.IGNORECASE,
)
_BOXED = re.compile(r"^.*(\\boxed\{.*\}).*$")
_LATEX = re.compile(r"\\(?:boxed|text|textbf|mathbf|mathrm)\{([^{}]*)\}")
_LABEL = re.compile(r"^\W*(?:explanation|rationale|reasoning)\W*:\W*", re.IGNORECASE)
_LETTER = re.compile(r"(?:option|choice)?\s*\(?([A-Za-z])(?:[).:]+|\Z)", re.IGNORECASE)
_MODEL = r"(?:ai(?:\s+(?:language\s+)?(?:model|assistant))?|(?:large\s+)?language\s+model)"
_REFUSAL = re.compile(
    r"^\W*(?:unfortunately,?\s+)?(?:"
    r"(?:i['\u2019]?m|i\s+am)\s+(?:very\s+|so\s+)?sorry\b"
    r"|sorry[,.!]?\s+(?:but|i|we|no)\b"
    r"|(?:my\s+apologies|i\s+apologi[sz]e)\b"
    r"|i(?:['\u2019]?m|\s+am)\s+(?:not\s+able|unable)\s+to\b"
    r"|i\s+(?:can(?:['\u2019]?t|\s*not)|won['\u2019]?t|will\s+not)\s+(?:help|assist|answer|provide"
    r"|comply|fulfil|engage|discuss|explain|write|do\s+(?:that|this)|in\s+good\s+conscience)"
    r"|i\s+(?:must|have\s+to)\s+decline\b"
    rf"|as\s+an?\s+{_MODEL}(?:,|\s+i\b)"
    r")",
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
        """Return the answer that `line` wrote.

        Raises:
            TypeError: it did not.
        """
        known: dict[str, Any] = {field.name: field.type for field in fields(Answer)}
        if not all(isinstance(values.get(name), kind) for name, kind in known.items()):
            raise TypeError
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
    match = _OWN_ANSWER.match(lines[own]) or _BOXED.match(lines[own])
    said = [match[1] if match else "", *lines[own + 1 :]]
    answer = next((line for line in map(_bare, said) if line), "")
    if example.open:
        return exact_match(answer, example.choices[0])
    return _chosen(answer, example) == example.answer


def _bare(line: str) -> str:
    """Return a line without the marks of Markdown and LaTeX around it."""
    while line != (inner := _LATEX.sub(r"\1", line)):
        line = inner
    return line.strip("*_`\"'$ \t")


def _own_line(lines: list[str]) -> int | None:
    """Return the number of the last line that holds an answer."""
    for pattern in (_OWN_ANSWER, _BOXED):
        if found := [number for number, line in enumerate(lines) if pattern.match(line)]:
            return found[-1]
    return None


def _chosen(said: str, example: Example) -> int | None:
    """Return the index of the choice that was named by its text, its letter or both."""
    exact = [normal(choice).casefold() for choice in example.choices]
    for text in (said, said.rstrip(".,;!")):
        if exact.count(normal(text).casefold()) == 1:
            return exact.index(normal(text).casefold())
    words = [bare_words(choice) for choice in example.choices]
    # Where choices differ in other signs alone, such as 5 and -5, words tell nothing.
    if len(set(words)) < len(words) or "" in words:
        return None
    if letter := _LETTER.match(said):
        index = ord(letter[1].upper()) - ord("A")
        rest = bare_words(said[letter.end() :])
        if index < len(words) and (not rest or f"{rest} ".startswith(f"{words[index]} ")):
            return index
    own = bare_words(said)
    # "yes, they do": one choice stands at the beginning, and no other anywhere.
    named = [n for n, word in enumerate(words) if f" {word} " in f" {own} "]
    if len(named) == 1 and f"{own} ".startswith(f"{words[named[0]]} "):
        return named[0]
    return None
