"""A server of the OpenAI form that knows the facts of the embedded world, for demonstrations.

    python examples/facts_server.py --creatures 48 --wrong 0.2

It answers chat completions on 127.0.0.1 that ask about the creatures of `data.source: creatures`:
with the two facts that a question needs, each wrong with a set probability, and, if it is asked
for, with the answer that follows from them. On demand it is slow, busy, broken or silent, as the
servers of real models are at times. GET /counts returns how often it was asked.
"""

import argparse
import asyncio
import hashlib
import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field

from aiohttp import web

from knife.config.run import World
from knife.data.creatures import ATTRIBUTES, WORLD_NAMES, Attribute, facts_of

_ABOUT = {
    "home": re.compile(r"same place|which one lives"),
    "diet": re.compile(r"same food|which one eats"),
    "colour": re.compile(r"same colour|which one is"),
}


@dataclass
class Settings:
    """How the server behaves.

    Attributes:
        wrong: probability that a fact is wrong.
        latency: seconds before each answer.
        busy, broken: of so many requests, one is refused with 429, or with 500; 0: none.
        cut, garbled: share of the answers that end early, or are no JSON.
        refuse: whether every answer is a refusal.
        key: the key that must be given, or "".
        models: the names of the models that there are; empty: any.
    """

    wrong: float = 0.0
    latency: float = 0.0
    busy: int = 0
    broken: int = 0
    cut: float = 0.0
    garbled: float = 0.0
    refuse: bool = False
    key: str = ""
    models: list[str] = field(default_factory=list)


class FactsServer:
    """The server's answers.

    Attributes:
        requests: how many came.
        answered: how many whole answers were sent, by a digest of what was asked.
    """

    def __init__(self, settings: Settings, world: World) -> None:
        self.settings = settings
        self.facts = facts_of(world)
        self.requests = 0
        self.answered: Counter[str] = Counter()

    def application(self) -> web.Application:
        """Return the web application."""
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self.complete)
        application.router.add_get("/counts", self.counts)
        return application

    async def counts(self, _: web.Request) -> web.Response:
        """Return how many requests came, were answered, and were answered again."""
        again = self.answered.total() - len(self.answered)
        return web.json_response(
            {"requests": self.requests, "answered": self.answered.total(), "again": again}
        )

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat completion."""
        settings = self.settings
        self.requests += 1
        number = self.requests
        if settings.key and request.headers.get("Authorization") != f"Bearer {settings.key}":
            return _error(401, "Incorrect API key provided")
        if settings.busy and number % settings.busy == 0:
            return _error(429, "Rate limit reached", {"Retry-After": "0.05"})
        if settings.broken and number % settings.broken == 0:
            return _error(500, "The server had an error")
        asked = await request.json()
        if settings.models and asked["model"] not in settings.models:
            return _error(404, f"The model {asked['model']!r} does not exist")
        if settings.latency:
            await asyncio.sleep(settings.latency)
        draw = random.Random(number)
        if draw.random() < settings.garbled:
            return web.Response(text="<html>upstream error</html>")
        said = json.dumps(asked["messages"])
        digest = hashlib.sha256(said.encode()).hexdigest()
        seen = self.answered[digest]
        body = _completion(asked, self.text(asked["messages"][-1]["content"], seen))
        if draw.random() < settings.cut:
            return await _cut_short(request, body)
        self.answered[digest] += 1
        return web.json_response(body)

    def text(self, asked: str, seen: int) -> str:
        """Return the text for a question that was asked so often before."""
        if self.settings.refuse:
            return "I'm sorry, but I can't help with that."
        question = next(
            (line for line in asked.splitlines() if line.startswith("Question: ")), asked
        )
        names = [word for word in re.findall(r"\w+", question) if word in WORLD_NAMES]
        about = [a for a in ATTRIBUTES if _ABOUT[a.name].search(question)]
        known = [name in self.facts[attribute.name] for attribute in about for name in names]
        if len(names) != 2 or len(about) != 1 or not all(known):
            return "Nothing is known about that.\nAnswer: unknown"
        draw = random.Random(f"{asked} {seen}")
        told = [self.told(about[0], name, draw) for name in names]
        if question.startswith("Question: which"):
            right = [n for n, v in zip(names, told, strict=True) if f" {v} " in f"{question} "]
            answer = (right or names)[0]
        else:
            answer = "yes" if told[0] == told[1] else "no"
        if "Write nothing else" in asked:
            return f"Answer: {answer}"
        text = " ".join(
            draw.choice(about[0].facts).format(n=name, v=value)
            for name, value in zip(names, told, strict=True)
        )
        return text if "Right answer:" in asked else f"{text}\nAnswer: {answer}"

    def told(self, attribute: Attribute, name: str, draw: random.Random) -> str:
        """Return what the server says of a creature."""
        true = self.facts[attribute.name][name]
        if draw.random() >= self.settings.wrong:
            return true
        return draw.choice([value for value in attribute.values if value != true])


def _completion(asked: dict[str, object], text: str) -> dict[str, object]:
    used = {"prompt_tokens": len(str(asked["messages"])) // 4, "completion_tokens": len(text) // 4}
    message = {"role": "assistant", "content": text}
    return {
        "object": "chat.completion",
        "model": asked["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": used,
    }


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"message": message}}, status=status, headers=headers)


async def _cut_short(request: web.Request, body: dict[str, object]) -> web.StreamResponse:
    """Send half of an answer and close the connection."""
    data = json.dumps(body).encode()
    response = web.StreamResponse(headers={"Content-Length": str(len(data))})
    await response.prepare(request)
    await response.write(data[: len(data) // 2])
    assert request.transport
    request.transport.close()
    return response


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=8808)
    parser.add_argument("--wrong", type=float, default=0.0, help="probability of a wrong fact")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--busy", type=int, default=0, help="one of so many requests gets 429")
    parser.add_argument("--broken", type=int, default=0, help="one of so many requests gets 500")
    parser.add_argument("--cut", type=float, default=0.0, help="share of answers that end early")
    parser.add_argument("--garbled", type=float, default=0.0, help="share that is no JSON")
    parser.add_argument("--refuse", action="store_true", help="refuse every request")
    parser.add_argument("--key", default="", help="the key that must be given")
    parser.add_argument("--models", nargs="*", default=[], help="the models that there are")
    parser.add_argument("--creatures", type=int, default=64, help="data.world.creatures")
    parser.add_argument("--seed", type=int, default=0, help="data.world.seed")
    given = vars(parser.parse_args())
    port = given.pop("port")
    world = World(creatures=given.pop("creatures"), seed=given.pop("seed"))
    server = FactsServer(Settings(**given), world)
    print(f"serving on http://127.0.0.1:{port}/v1", flush=True)
    web.run_app(server.application(), host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
