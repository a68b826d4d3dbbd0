"""How a language model writes rationales: `knife data write`."""

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from knife.config.section import ConfigSection
from knife.core import strict_json

Given = Literal["answer", "nothing"]
Keep = Literal["right", "all", "best"]
# In capitals, as is usual: keys have other letters too, and one must not pass for a name.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,60}")
# Fields of a request that have a key of their own, or would change what an answer is.
_OWN_FIELDS = ("messages", "model", "temperature", "max_tokens", "n", "stream")


class Drop(ConfigSection):
    """Which rationales are dropped, besides those that are empty, refused or cut off.

    `names_answer` drops those that state the answer, or a choice by its letter; `words` are the
    fewest and the most words; `repeated` drops texts that many examples have.
    """

    names_answer: bool = True
    words: tuple[int, int] = (3, 200)
    repeated: bool = True

    @field_validator("words")
    @classmethod
    def _limits(cls, value: tuple[int, int]) -> tuple[int, int]:
        if 0 < value[0] <= value[1]:
            return value
        raise ValueError(f"must be [FEWEST, MOST], both above 0, but got {list(value)}")


class Rate(ConfigSection):
    """The most requests and tokens in a minute, of all workers together; null is any number."""

    requests: float | None = Field(None, gt=0)
    tokens: float | None = Field(None, gt=0)


class Budget(ConfigSection):
    """What all requests together may use, earlier ones included: tokens read and written, and
    money at `price`; null is any amount."""

    tokens: int | None = Field(None, gt=0)
    money: float | None = Field(None, gt=0)


class Price(ConfigSection):
    """The price of a million tokens, read and written, in any currency."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class Write(ConfigSection):
    """Which model writes rationales, how it is asked, and which of its texts are kept.

    `url` is the address of a server of the OpenAI form, such as `http://127.0.0.1:8000/v1`; null
    has `model`, a folder or a hub id, run here. `key` names the environment variable with the
    server's key. `prompt` is the package's or a file; `shots` examples that have a rationale are
    shown before. `given: answer` shows the model the right answer. `splits` are those that get
    rationales. `samples` texts are asked for each question. `keep` is what becomes of those that
    are not dropped: `right` needs the model's own answer, found without sight of the right one, to
    be right; `best` prefers the texts that help a cheap classifier most; else the
    first count. At most so many `rationales` of each question are kept.
    `in_flight` requests of each worker are under way at once. `extra` are more fields of a request.
    """

    url: str | None = None
    model: str = Field(min_length=1)
    key: str = "KNIFE_WRITE_KEY"
    prompt: str = "builtin"
    shots: int = Field(0, ge=0)
    given: Given = "answer"
    splits: list[Literal["train", "dev"]] = Field(["train"], min_length=1)
    samples: int = Field(1, ge=1)
    temperature: float | None = Field(0.7, ge=0)
    max_tokens: int = Field(256, ge=1)
    extra: dict[str, Any] = Field(default_factory=dict)
    keep: Keep = "all"
    rationales: int = Field(1, ge=1)
    drop: Drop = Drop()
    rate: Rate = Rate()
    in_flight: int = Field(32, ge=1)
    timeout: float = Field(120, gt=0)
    workers: int | None = Field(None, ge=1)
    budget: Budget = Budget()
    price: Price | None = None

    @field_validator("url")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        # Not shown: it may hold a password.
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError(
                "must be scheme, host and path alone, but got more (not shown here): a key belongs "
                "into the environment variable that write.key names"
            )
        try:
            known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            # No number, or beyond those of ports.
            known = False
        if not known:
            raise ValueError(f"must be http://HOST:PORT/v1 or https://…, but got {value!r}")
        return value.rstrip("/").removesuffix("/chat/completions")

    @field_validator("key")
    @classmethod
    def _variable(cls, value: str) -> str:
        if not _VARIABLE.fullmatch(value):
            raise ValueError(
                "must be the name of an environment variable that holds the key, in capitals, but "
                "got something else (not shown here)"
            )
        return value

    @field_validator("extra")
    @classmethod
    def _others(cls, value: dict[str, Any]) -> dict[str, Any]:
        if own := [name for name in _OWN_FIELDS if name in value]:
            raise ValueError(f"got {', '.join(own)}, which are set by keys of write itself")
        try:
            strict_json.dumps(value)
        except (ValueError, TypeError) as error:
            raise ValueError(f"got what JSON cannot hold: {error}") from None
        most = value.get("max_completion_tokens", 1)
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise ValueError(f"max_completion_tokens must be a number above 0, but got {most!r}")
        return value

    @model_validator(mode="after")
    def _whole(self) -> "Write":
        if self.budget.money is not None and self.price is None:
            raise ValueError("got budget.money, which needs write.price: {input: …, output: …}")
        if self.url is None and (self.rate.requests or self.rate.tokens):
            raise ValueError("got rate, which is for a server, but there is no write.url")
        if self.url is None and self.extra:
            raise ValueError("got extra, which is for a server, but there is no write.url")
        if self.keep == "best" and self.samples == 1:
            raise ValueError(
                "got keep: best, which chooses among samples: set write.samples above 1"
            )
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("got several samples at temperature: 0, where all texts are the same")
        if self.rationales > self.samples:
            raise ValueError(
                f"got rationales: {self.rationales}, more than samples: {self.samples}; set "
                "write.samples to at least as many"
            )
        return self

    @property
    def longest(self) -> int:
        """The most tokens of an answer. Some servers want `max_completion_tokens` for
        `max_tokens`: if `extra` has it, that is sent instead."""
        return int(self.extra.get("max_completion_tokens", self.max_tokens))

    def cost(self, read: float, written: float) -> float:
        """Return the price of so many tokens; 0 if no price is given."""
        if self.price is None:
            return 0.0
        return (read * self.price.input + written * self.price.output) / 1e6

    @property
    def host(self) -> str | None:
        """The address without its path; None if the model runs here."""
        return urlsplit(self.url).netloc if self.url else None
