"""Requests to a real server that is busy, broken or strict: what is sent again, and what is not."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from aiohttp import web
from facts import example

from knife.config.write import Write
from knife.core.errors import UserError
from knife.data.example import Example
from knife.writing.asking import Asker, Outcome, Spent
from knife.writing.kept import Keeper, Kept
from knife.writing.prompt import read_prompt
from knife.writing.request import Request, requests, tokens_of
from knife.writing.server import Secret

GOOD = {
    "model": "m-1",
    "choices": [{"message": {"content": "cats meow a lot ."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 50, "completion_tokens": 10},
}
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextmanager
def serving(answer: Answering) -> Iterator[str]:
    """Serve chat completions in a thread; yield the address."""
    ready, over = Event(), asyncio.Event()
    loop, port = asyncio.new_event_loop(), 0

    async def handle(request: web.Request) -> web.StreamResponse:
        return await answer(request)

    async def serve() -> None:
        nonlocal port
        application = web.Application()
        application.router.add_post("/v1/chat/completions", handle)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        ready.set()
        await over.wait()
        await runner.cleanup()

    thread = Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


def settings(url: str, **changes: object) -> Write:
    return Write.model_validate({"url": url, "model": "m", "max_tokens": 10} | changes)


def ask(
    write: Write,
    folder: Path,
    count: int = 1,
    key: str | None = None,
    examples: Sequence[Example] = (),
) -> Outcome:
    """Ask about different questions, and keep the answers in a folder."""
    prompt = read_prompt("builtin", write.given, [], example())
    some = [example(id=str(n), question=f"do {n} dogs bark ?") for n in range(count)]
    some = list(examples) or some
    kept = Kept(folder)
    missing: list[Request] = kept.missing(requests(write, "m", prompt, some), write.longest)

    async def all_of_them() -> Outcome:
        keeper = Keeper(folder)
        spent = Spent(write, kept.read, kept.written)
        asker = Asker(write, prompt, Secret(key), keeper, spent)
        try:
            return await asker.ask(missing)
        finally:
            await asker.close()
            keeper.close()

    return asyncio.run(all_of_them())


class Replies:
    """Answers with the given responses first, then well.

    Attributes:
        bodies, keys: what was sent.
    """

    def __init__(self, *first: Callable[[], web.Response]) -> None:
        self._left = list(first)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    async def __call__(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        self.keys.append(request.headers.get("Authorization"))
        return self._left.pop(0)() if self._left else web.json_response(GOOD)


def reply(status: int = 200, body: object = None, **headers: str) -> Callable[[], web.Response]:
    return lambda: web.json_response(body, status=status, headers=headers)


def test_what_is_sent_and_kept(tmp_path: Path) -> None:
    replies = Replies()
    with serving(replies) as url:
        outcome = ask(settings(url, extra={"top_p": 0.9}), tmp_path, key="sk-1")
    assert outcome == Outcome(answered=1)
    (body,) = replies.bodies
    assert body.pop("messages")[0]["role"] == "user"
    assert body == {"model": "m", "max_tokens": 10, "temperature": 0.7, "top_p": 0.9}
    assert replies.keys == ["Bearer sk-1"]
    (answer,) = Kept(tmp_path).answers.values()
    assert (answer.text, answer.finish, answer.model) == ("cats meow a lot .", "stop", "m-1")
    assert (answer.read, answer.written, answer.counted) == (50, 10, True)


def test_no_key_is_sent_if_there_is_none(tmp_path: Path) -> None:
    replies = Replies()
    with serving(replies) as url:
        ask(settings(url, temperature=None, extra={"max_completion_tokens": 9}), tmp_path)
    assert replies.keys == [None]
    assert replies.bodies[0].keys() == {"model", "messages", "max_completion_tokens"}


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (reply(429), "status 429"),
        (reply(500), "status 500"),
        (reply(503), "status 503"),
        (lambda: web.Response(text="<html>"), "answer that is no chat completion"),
        (reply(200, {"choices": []}), "answer that is no chat completion"),
        (
            reply(200, {"choices": [{"message": {"content": 5}}]}),
            "answer that is no chat completion",
        ),
        (reply(200, [1]), "answer that is no chat completion"),
    ],
)
def test_what_may_pass_is_sent_again(
    tmp_path: Path, first: Callable[[], web.Response], reason: str
) -> None:
    replies = Replies(first, first)
    with serving(replies) as url:
        outcome = ask(settings(url), tmp_path)
    assert outcome == Outcome(answered=1, resent={reason: 2})
    assert len(replies.bodies) == 3


def test_a_server_is_given_the_time_that_it_asks_for(tmp_path: Path) -> None:
    began = time.monotonic()
    with serving(Replies(reply(429, **{"Retry-After": "2"}))) as url:
        assert ask(settings(url), tmp_path).answered == 1
    assert time.monotonic() - began > 2


def test_an_answer_that_takes_too_long_is_asked_for_again(tmp_path: Path) -> None:
    slow = [True]

    async def answer(_: web.Request) -> web.Response:
        if slow and slow.pop():
            await asyncio.sleep(5)
        return web.json_response(GOOD)

    with serving(answer) as url:
        outcome = ask(settings(url, timeout=0.5), tmp_path)
    assert outcome == Outcome(answered=1, resent={"no answer in 0.5 s": 1})


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "write.key: http.* refuses the key of the environment variable KNIFE_WRITE_KEY"),
        (403, "write.key: "),
        (404, "write.model: http.* has no model 'm', or the address is wrong"),
        (405, "write.model: "),
    ],
)
def test_what_will_not_pass_ends_the_work_at_once(tmp_path: Path, status: int, said: str) -> None:
    error = reply(status, {"error": {"message": "the key sk-1 is of no use"}})
    replies = Replies(*[error] * 50)
    with serving(replies) as url, pytest.raises(UserError, match=said) as ended:
        ask(settings(url, in_flight=1), tmp_path, 50, key="sk-1")
    assert len(replies.bodies) == 1
    # Some servers repeat the key that they refuse.
    assert "sk-1" not in str(ended.value)


def test_an_account_without_money_ends_the_work(tmp_path: Path) -> None:
    error = reply(429, {"error": {"code": "insufficient_quota", "message": "You have no credit"}})
    with serving(Replies(error)) as url, pytest.raises(UserError, match="You have no credit"):
        ask(settings(url), tmp_path)


def test_one_bad_request_does_not_end_the_others(tmp_path: Path) -> None:
    error = reply(400, {"error": {"message": "this model has 4096 positions"}})
    with serving(Replies(error)) as url:
        outcome = ask(settings(url, in_flight=1), tmp_path, 5)
    assert outcome.answered == 4
    assert outcome.failed == {"status 400: this model has 4096 positions": 1}
    assert outcome.stopped == ""


def test_nothing_but_bad_requests_ends_the_work(tmp_path: Path) -> None:
    replies = Replies(*[reply(400, {"detail": "no such setting"})] * 80)
    with serving(replies) as url:
        outcome = ask(settings(url, in_flight=1), tmp_path, 80)
    assert len(replies.bodies) == 50
    assert outcome.stopped == (
        "50 requests in a row brought nothing of use: status 400: no such setting"
    )


def test_a_server_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"write.url: http://127.0.0.1:9/v1 does not answer"):
        ask(settings("http://127.0.0.1:9/v1"), tmp_path, 3)


def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    message = {"content": None, "refusal": "That is against the rules."}
    with serving(Replies(reply(200, {"choices": [{"message": message}]}))) as url:
        ask(settings(url), tmp_path)
    (answer,) = Kept(tmp_path).answers.values()
    assert answer.refused
    assert answer.text == "That is against the rules."
    # The server did not count.
    assert not answer.counted
    assert answer.read > 50


def test_the_budget_is_never_exceeded(tmp_path: Path) -> None:
    """A question has about 90 tokens by our estimate, and is counted as 50 by the server."""
    with serving(Replies()) as url:
        outcome = ask(settings(url, budget={"tokens": 1000}, in_flight=4), tmp_path, 40)
        kept = Kept(tmp_path)
        assert outcome.stopped == "the budget allows no further request"
        assert 850 < kept.read + kept.written <= 1000
        # What was used before counts.
        assert ask(settings(url, budget={"tokens": 1000}), tmp_path, 40).answered == 0
        more = ask(settings(url, budget={"tokens": 2000}), tmp_path, 40)
        assert more.answered > 10
    price = {"input": 1000, "output": 1000}
    with serving(Replies()) as url:
        (tmp_path / "money").mkdir()
        write = settings(url, budget={"money": 1}, price=price)
        assert ask(write, tmp_path / "money", 40).stopped == "the budget allows no further request"
    kept = Kept(tmp_path / "money")
    assert 0.85 < write.cost(kept.read, kept.written) <= 1


@pytest.mark.parametrize("of", ["requests", "tokens"])
def test_the_rate_is_kept(tmp_path: Path, of: str) -> None:
    """At 10 a second, the first second's worth at once, 25 requests take 1.5 seconds."""
    times = []
    (asked,) = read_prompt("builtin", "answer", [], example()).messages(example(), "rationale")
    # As many tokens are set aside as the answer may have.
    rate = {of: 600 * {"requests": 1, "tokens": tokens_of([asked["content"]]) + 10}[of]}

    async def answer(_: web.Request) -> web.Response:
        times.append(time.monotonic())
        return web.json_response(GOOD)

    with serving(answer) as url:
        assert ask(settings(url, rate=rate), tmp_path, 25).answered == 25
    assert times[-1] - times[0] > 1.2


def test_long_questions_take_their_share_of_the_rate(tmp_path: Path) -> None:
    """Each has more tokens than a second of the rate."""
    began = time.monotonic()
    long = "why ? " * 600
    with serving(Replies()) as url:
        write = settings(url, rate={"tokens": 60_000}, prompt="builtin")
        some = [example(id=str(n), question=f"{n} {long}") for n in range(3)]
        assert ask(write, tmp_path, examples=some).answered == 3
    # Three of about 990 tokens at 1,000 a second, the first second's worth at once.
    assert time.monotonic() - began > 1.5


def test_a_server_that_counts_more_than_we_do_ends_it_earlier(tmp_path: Path) -> None:
    """Each answer is counted as ten times what was set aside: one is enough to know."""
    usage = {"prompt_tokens": 900, "completion_tokens": 100}
    with serving(Replies(*[reply(200, GOOD | {"usage": usage})] * 40)) as url:
        write = settings(url, budget={"tokens": 5000}, in_flight=1)
        assert ask(write, tmp_path, 40).answered == 5
    kept = Kept(tmp_path)
    assert kept.read + kept.written == 5000


@pytest.mark.parametrize("usage", [{"prompt_tokens": -5, "completion_tokens": 1}, {}, None])
def test_what_is_no_count_is_estimated(tmp_path: Path, usage: object) -> None:
    with serving(Replies(reply(200, GOOD | {"usage": usage}))) as url:
        ask(settings(url), tmp_path)
    (answer,) = Kept(tmp_path).answers.values()
    assert not answer.counted
    assert answer.read > 50


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    """JSON can hold it, but no file of ours."""
    body = json.dumps(GOOD).replace("cats meow", "cats \\ud800 meow")
    with serving(Replies(lambda: web.Response(text=body))) as url:
        ask(settings(url), tmp_path)
    (answer,) = Kept(tmp_path).answers.values()
    assert answer.text == "cats ? meow a lot ."


def test_only_so_many_are_under_way(tmp_path: Path) -> None:
    under_way = most = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return web.json_response(GOOD)

    with serving(answer) as url:
        assert ask(settings(url, in_flight=5), tmp_path, 60).answered == 60
    assert most == 5


def test_a_key_is_not_shown() -> None:
    assert "sk-1" not in repr(Secret("sk-1"))
    assert "sk-1" not in json.dumps({"work": str([Secret("sk-1")])})
