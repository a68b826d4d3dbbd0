"""Which of a model's texts become rationales, and why the others do not."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from knife.config.write import Write
from knife.data.check import says_answer
from knife.data.example import Example
from knife.data.normal import normal
from knife.data.subset import share_choices
from knife.data.suspicious import OFTEN, named_letter, same_words
from knife.writing.answer import Answer, is_right, plain, rationale_of
from knife.writing.best import gains
from knife.writing.request import Request

NO_TEXT = "no text"
REFUSED = "refused"
CUT = "cut off"
NAMES_ANSWER = "names the answer"
SHORT, LONG = "too short", "too long"
REPEATED = "repeated"
WRONG = "the model is wrong"
UNKNOWN = "the model's own answer is missing"
OTHER = "another is used"


@dataclass(slots=True)
class Judged:
    """A text for a question.

    Attributes:
        request: what it was written for.
        answer: as it came.
        text: the rationale in it.
        reason: why it is not used; "" if it is.
        gain: what it adds to a cheap classifier's log-probability of the right answer, in nats;
            None if that was not asked for.
    """

    request: Request
    answer: Answer
    text: str
    reason: str = ""
    gain: float | None = None

    @property
    def example(self) -> Example:
        """The question with this text as its rationale."""
        return replace(self.request.example, rationale=self.text)


def judge(
    settings: Write, requests: Iterable[Request], answers: Mapping[str, Answer]
) -> list[Judged]:
    """Judge all texts that there are for the questions of a split: of each question, as many as
    wanted are left without a reason against them, the ones to use first."""
    requests = list(requests)
    alone = {
        request.example.id: answers.get(request.key)
        for request in requests
        if request.kind == "answer"
    }
    judged = [
        Judged(request, answer, _rationale(settings, answer))
        for request in requests
        if request.kind == "rationale" and (answer := answers.get(request.key))
    ]
    shared = share_choices([request.example for request in requests])
    for each in judged:
        each.reason = _reason(settings, each, shared=shared)
    if settings.drop.repeated:
        _drop_repeated(judged)
    if settings.keep == "right":
        for each in _left(judged):
            example = each.request.example
            own = alone[example.id] if settings.given == "answer" else each.answer
            if own is None:
                each.reason = UNKNOWN
            elif not is_right(own.bare, example):
                each.reason = WRONG
    _choose(settings, judged)
    return judged


def reasons(judged: Iterable[Judged]) -> dict[str, int]:
    """Count the texts that are not used, by the reason, the most frequent first."""
    return dict(Counter(each.reason for each in judged if each.reason).most_common())


def _rationale(settings: Write, answer: Answer) -> str:
    """Return the text without the model's own answer, if it was asked for one."""
    if settings.given == "nothing":
        return rationale_of(answer.bare)
    return plain(answer.bare)


def _reason(settings: Write, judged: Judged, *, shared: bool) -> str:
    answer, text, drop = judged.answer, judged.text, settings.drop
    if answer.refused:
        return REFUSED
    if answer.cut:
        return CUT
    if not text:
        return NO_TEXT
    words = len(text.split())
    if words < drop.words[0]:
        return SHORT
    if words > drop.words[1]:
        return LONG
    return NAMES_ANSWER if drop.names_answer and _names_answer(judged, shared=shared) else ""


def _names_answer(judged: Judged, *, shared: bool) -> bool:
    """Whether a rationale states the answer or a choice's letter. Where all questions share their
    choices, such as yes and no, a choice is a word like others unless it is said to be the
    answer."""
    example = judged.example
    if named_letter(example, judged.text) is not None:
        return True
    if not shared:
        return says_answer(example)
    answer = re.escape(normal(example.choices[example.answer]))
    said = (
        rf"^\W*{answer}(?:[^\w\s]|$)",
        rf"\b(?:so|thus|hence|therefore),?\s+{answer}(?:[^\w\s]|$)",
        rf"\b(?:answer|choice|option)\W+(?:(?:is|was|be|would|must|should)\W+)*{answer}\b",
    )
    return any(re.search(each, judged.text, re.IGNORECASE) for each in said)


def _drop_repeated(judged: Sequence[Judged]) -> None:
    """Drop texts that many questions have: they explain none of them."""
    questions: dict[str, set[str]] = {}
    for each in _left(judged):
        questions.setdefault(same_words(each.text), set()).add(each.request.example.id)
    for each in _left(judged):
        if len(questions[same_words(each.text)]) >= OFTEN:
            each.reason = REPEATED


def _choose(settings: Write, judged: Sequence[Judged]) -> None:
    """Leave so many texts of each question: the first, or the ones that help most."""
    left = _left(judged)
    if settings.keep == "best":
        for each, gain in zip(left, gains([each.example for each in left]), strict=True):
            each.gain = gain
        left.sort(key=lambda each: -(each.gain or 0))
    chosen = Counter[str]()
    said: set[tuple[str, str]] = set()
    for each in left:
        example, words = each.request.example.id, same_words(each.text)
        if chosen[example] == settings.rationales or (example, words) in said:
            each.reason = OTHER
        else:
            chosen[example] += 1
            said.add((example, words))


def _left(judged: Iterable[Judged]) -> list[Judged]:
    return [each for each in judged if not each.reason]
