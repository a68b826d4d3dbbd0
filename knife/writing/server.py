"""A server of the OpenAI form: one request for a chat completion, tried again until it is answered.

https://platform.openai.com/docs/api-reference/chat: POST URL/chat/completions.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard

import aiohttp
from aiolimiter import AsyncLimiter
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from knife.config.write import Write
from knife.core import strict_json
from knife.core.errors import UserError
from knife.writing.answer import Answer
from knife.writing.request import Request, tokens_of

# So often is one request sent; waits grow to a minute, so that these are about five minutes.
TRIES = 15
_WAIT = wait_random_exponential(multiplier=0.5, max=60)
_AGAIN = {408, 409, 425, 429}
# Codes of servers for an account without money: waiting does not help.
_NO_MONEY = ("insufficient_quota", "billing_not_active", "insufficient_balance")
_SHOWN = 300


class TransientError(Exception):
    """A request that may be answered if it is sent again, after `wait` seconds if known."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        self.wait = wait
        super().__init__(what)


class RefusedRequestError(Exception):
    """A request that the server will never answer; others may be."""


@dataclass(frozen=True)
class Secret:
    """A key that is never shown, whoever prints what it is in."""

    value: str | None

    def __repr__(self) -> str:
        """Show nothing of it."""
        return "***"


class Server:
    """A server, with as many connections as requests in flight.

    Attributes:
        resent: how often requests were sent again, by the reason.
    """

    def __init__(self, settings: Write, key: Secret, share: float) -> None:
        """Prepare to ask; `share` of the rate is this process's. Must be called in a loop."""
        assert settings.url
        self._settings, self._key = settings, key
        self._url = f"{settings.url}/chat/completions"
        headers = {"Authorization": f"Bearer {key.value}"} if key.value else {}
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=settings.timeout),
            json_serialize=strict_json.dumps,
            connector=aiohttp.TCPConnector(limit=settings.in_flight),
        )
        self._requests = _limiter(settings.rate.requests, share)
        self._tokens = _limiter(settings.rate.tokens, share)
        self._answered = False
        self.resent: dict[str, int] = {}

    async def ask(self, request: Request, sent: Mapping[str, Any], asked: int) -> Answer:
        """Return the answer to a request, whose body and estimated number of tokens are given.

        Raises:
            TransientError: it was sent `TRIES` times in vain.
            RefusedRequestError: the server will not answer it.
            UserError: the server cannot be reached or will answer no request: wrong key or model.
        """
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TransientError),
            stop=stop_after_attempt(TRIES),
            wait=_wait,
            before_sleep=self._again,
            reraise=True,
        )
        return await retrying(self._once, request, sent, asked)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _again(self, state: RetryCallState) -> None:
        reason = str(state.outcome.exception()) if state.outcome else ""
        self.resent[reason] = self.resent.get(reason, 0) + 1

    async def _once(self, request: Request, sent: Mapping[str, Any], asked: int) -> Answer:
        limit = self._settings.longest
        if self._requests:
            await self._requests.acquire()
        left = float(asked + limit) if self._tokens else 0.0
        while self._tokens and left > 0:
            # A limiter gives no more than a second's worth at once.
            part = min(left, self._tokens.max_rate)
            await self._tokens.acquire(part)
            left -= part
        try:
            async with self._session.post(self._url, json=sent) as response:
                text = await response.text(errors="replace")
                status, headers = response.status, response.headers
        except aiohttp.ClientConnectorError as error:
            if not self._answered:
                raise UserError(
                    f"write.url: {self._settings.url} does not answer: {error.strerror or error}; "
                    "start the server, or set the address of one"
                ) from None
            raise TransientError("no connection") from error
        except TimeoutError as error:
            raise TransientError(f"no answer in {self._settings.timeout:g} s") from error
        except aiohttp.ClientError as error:
            raise TransientError("answer cut on its way") from error
        if status != 200:
            self._refuse(status, headers, text)
        self._answered = True
        return _answer(request, text, asked, limit)

    def _refuse(self, status: int, headers: Mapping[str, str], text: str) -> None:
        """Raise what a status other than 200 means."""
        # Some servers repeat the key that they refuse.
        url, said = self._settings.url, _message(self._without_key(text))
        if any(code in text for code in _NO_MONEY):
            raise UserError(f"write.url: {url}: {said}")
        if status in _AGAIN or status >= 500:
            raise TransientError(f"status {status}", _retry_after(headers))
        if status in (401, 403):
            raise UserError(
                f"write.key: {url} refuses the key of the environment variable "
                f"{self._settings.key}{'' if self._key.value else ', which is not set'} "
                f"(status {status}): {said}"
            )
        if status in (404, 405):
            raise UserError(
                f"write.model: {url} has no model {self._settings.model!r}, or the address is "
                f"wrong (status {status}): {said}; it usually ends with /v1"
            )
        raise RefusedRequestError(f"status {status}: {said}")

    def _without_key(self, text: str) -> str:
        return text.replace(self._key.value, "***") if self._key.value else text


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _limiter(rate: float | None, share: float) -> AsyncLimiter | None:
    """Return a limiter to a share of a rate a minute, which lets through a second's worth at once,
    but at least one."""
    if rate is None:
        return None
    second = rate * share / 60
    return AsyncLimiter(second, 1) if second >= 1 else AsyncLimiter(1, 1 / second)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, TransientError) else None
    return max(_WAIT(state), asked or 0)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, at most ten minutes."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0), 600)


def _message(text: str) -> str:
    """Return what a server says of an error: its message, or the beginning of its text."""
    try:
        found = strict_json.loads(text)
        said = found.get("error", found)
        if isinstance(said, dict):
            said = said.get("message") or said.get("detail") or said
    except (ValueError, AttributeError):
        said = text
    return " ".join(str(said).split())[:_SHOWN] or "no message"


def _answer(request: Request, text: str, asked: int, limit: int) -> Answer:
    """Return the answer in the text of a response."""
    try:
        found = strict_json.loads(text)
        choice = found["choices"][0]
        message = choice["message"]
        refusal = message.get("refusal")
        content = message.get("content") or refusal or ""
        # Half of a surrogate pair can be in JSON, but in no file.
        content = content.encode("utf-8", "replace").decode()
        finish = "content_filter" if refusal else str(choice.get("finish_reason") or "stop")
        usage = found.get("usage") or {}
        read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
        model = str(found.get("model") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise TransientError("answer that is no chat completion") from None
    counted = True
    if not (_is_count(read) and _is_count(written)):
        counted, read, written = False, asked, tokens_of([content])
    return Answer(
        key=request.key,
        text=content,
        finish=finish,
        limit=limit,
        read=read,
        written=written,
        counted=counted,
        model=model,
        time=time.time(),
    )
