"""One request to a language model, addressed by all that its answer depends on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knife.config.write import Write
from knife.data.example import Example
from knife.store.store import fingerprint
from knife.writing.prompt import Kind, Prompt

# A token is about so many characters of English; used where no server has counted.
CHARACTERS = 4


@dataclass(frozen=True, slots=True)
class Request:
    """A request for one text on one question.

    Attributes:
        key: equal for requests with the same prompt, model and sampling.
        example: the question.
        kind: what is asked for.
        sample: the number of the text, from 0.
    """

    key: str
    example: Example
    kind: Kind
    sample: int


def requests(
    settings: Write, model: str, prompt: Prompt, examples: Sequence[Example]
) -> Iterator[Request]:
    """Yield the requests for rationales of some questions, question by question.

    `model` names the model: what a server calls it, or a digest of its files. If only rationales of
    a model that is right are kept but it sees the right answer, it is also asked without.
    """
    asks_alone = settings.keep == "right" and settings.given == "answer"
    for example in examples:
        if asks_alone:
            yield _request(settings, model, prompt, example, "answer", 0)
        for sample in range(settings.samples):
            yield _request(settings, model, prompt, example, "rationale", sample)


def body(settings: Write, prompt: Prompt, request: Request) -> dict[str, Any]:
    """Return what a server is sent for a request."""
    sent = {
        "model": settings.model,
        "messages": prompt.messages(request.example, request.kind),
    } | settings.extra
    if "max_completion_tokens" not in sent:
        sent["max_tokens"] = settings.max_tokens
    temperature = temperature_of(settings, request.kind)
    return sent if temperature is None else sent | {"temperature": temperature}


def tokens_of(texts: Sequence[str]) -> int:
    """Estimate the number of tokens of some texts."""
    return -(-sum(map(len, texts)) // CHARACTERS)


def tokens_in(messages: Sequence[Mapping[str, str]]) -> int:
    """Estimate the number of tokens of a chat."""
    return tokens_of([message["content"] for message in messages])


def temperature_of(settings: Write, kind: Kind) -> float | None:
    """Return the temperature of a request: a model's own answer is not drawn."""
    return settings.temperature and (settings.temperature if kind == "rationale" else 0.0)


def _request(
    settings: Write, model: str, prompt: Prompt, example: Example, kind: Kind, sample: int
) -> Request:
    # Neither the address nor the most tokens: a moved server or a raised limit pays nothing twice.
    about = {
        "model": model,
        "messages": prompt.messages(example, kind),
        "temperature": temperature_of(settings, kind),
        "extra": {k: v for k, v in settings.extra.items() if k != "max_completion_tokens"},
        "sample": sample,
    }
    return Request(fingerprint(about), example, kind, sample)
