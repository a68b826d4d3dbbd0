"""Asks a server for many answers at once, within a budget, and keeps each as it comes."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from knife.config.write import Write
from knife.core.errors import UserError
from knife.writing.answer import Answer
from knife.writing.kept import Keeper
from knife.writing.prompt import Prompt
from knife.writing.request import Request, body, tokens_in
from knife.writing.server import RefusedRequestError, Secret, Server, TransientError

# Why requests are not sent.
USED_UP = "the budget allows no further request"
# So many answers in a row that are of no use end the work.
USELESS = 50


@dataclass
class Spent:
    """What answers have cost, and what those under way may.

    Attributes:
        settings: with the budget and the price.
        read, written: numbers of tokens that were used, earlier ones and those reserved included.
        reserved: what requests under way may use, by their keys.
        most_read, most_written: the most that the server has counted, relative to estimates.
    """

    settings: Write
    read: float
    written: float
    reserved: dict[str, tuple[float, float]] = field(default_factory=dict)
    most_read: float = 1.0
    most_written: float = 1.0

    def reserve(self, key: str, read: float, written: float) -> bool:
        """Set aside tokens for a request, by estimates; False if they would exceed the budget."""
        read, written = read * self.most_read, written * self.most_written
        if not self._within(self.read + read, self.written + written):
            return False
        self.reserved[key] = (read, written)
        self.read, self.written = self.read + read, self.written + written
        return True

    def release(self, key: str, answers: Iterable[Answer]) -> None:
        """Replace what was set aside by what was used."""
        read, written = self.reserved.pop(key)
        answers = list(answers)
        self.read += sum(answer.read for answer in answers) - read
        self.written += sum(answer.written for answer in answers) - written

    def learn(self, answer: Answer, asked: int) -> None:
        """Correct later estimates by an answer to a request of so many tokens, by estimate."""
        self.most_read = max(self.most_read, answer.read / max(asked, 1))
        self.most_written = max(self.most_written, answer.written / answer.limit)

    def _within(self, read: float, written: float) -> bool:
        budget = self.settings.budget
        if budget.tokens is not None and read + written > budget.tokens:
            return False
        return budget.money is None or self.settings.cost(read, written) <= budget.money


@dataclass
class Outcome:
    """What became of requests.

    Attributes:
        answered: how many were answered.
        failed: how many were not, by the reason.
        resent: how often requests were sent again, by the reason.
        stopped: why others were not sent; "" if all were.
    """

    answered: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    resent: dict[str, int] = field(default_factory=dict)
    stopped: str = ""

    def add(self, other: "Outcome") -> None:
        """Add what became of other requests."""
        self.answered += other.answered
        for mine, theirs in ((self.failed, other.failed), (self.resent, other.resent)):
            for reason, number in theirs.items():
                mine[reason] = mine.get(reason, 0) + number
        self.stopped = self.stopped or other.stopped


@dataclass
class Watch:
    """Ends work that brings nothing of use.

    Attributes:
        useless: how many requests in a row brought nothing of use.
        stopped: why no more are sent; "" if they are.
    """

    useless: int = 0
    stopped: str = ""

    def look(self, answer: Answer | None, error: str = "") -> None:
        """Look at an answer, or at the error in its place."""
        if answer and answer.bare and not answer.refused:
            self.useless = 0
            return
        self.useless += 1
        if self.useless >= USELESS:
            said = f"the model wrote {answer.text[:80]!r}" if answer else error
            if answer and answer.cut:
                said += f", cut off at {answer.limit} tokens (write.max_tokens)"
            self.stopped = f"{USELESS} requests in a row brought nothing of use: {said}"


class Asker:
    """Asks a server from one event loop, however many calls of `ask` are under way."""

    def __init__(
        self,
        settings: Write,
        prompt: Prompt,
        key: Secret,
        keeper: Keeper,
        spent: Spent,
        share: float = 1,
    ) -> None:
        """Prepare to ask; `share` of the rate is this process's. Must be called in a loop."""
        self._settings, self._prompt, self._keeper, self._spent = settings, prompt, keeper, spent
        self._server = Server(settings, key, share)
        self._room = asyncio.Semaphore(settings.in_flight)
        self._freed = asyncio.Event()
        self._watch = Watch()
        self.stopped = ""

    async def ask(
        self, requests: Iterable[Request], done: Callable[[int], None] = lambda _: None
    ) -> Outcome:
        """Ask for all answers and keep them; `done` is called with each number of requests.

        Raises:
            UserError: the server will answer no request, or answers cannot be kept.
        """
        outcome, waiting = Outcome(), iter(requests)

        async def one_after_another() -> None:
            # All take from the same iterator, which ends once for all.
            while not self.stopped:
                async with self._room:
                    request = next(waiting, None)
                    if request is None or self.stopped:
                        return
                    done(await self._one(request, outcome))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._settings.in_flight):
                    group.create_task(one_after_another())
        except* UserError as errors:
            raise UserError(*_first(errors).errors) from None
        # Of all calls that are under way, each counts once.
        outcome.resent, self._server.resent = self._server.resent, {}
        outcome.stopped = self.stopped
        return outcome

    async def close(self) -> None:
        """Close all connections."""
        await self._server.close()

    async def _one(self, request: Request, outcome: Outcome) -> int:
        """Ask for an answer; return the number of requests that were sent: one, or none."""
        sent = body(self._settings, self._prompt, request)
        read = tokens_in(sent["messages"])
        while not self._spent.reserve(request.key, read, self._settings.longest):
            if not self._spent.reserved:
                self.stopped = USED_UP
                return 0
            # What is under way mostly takes less than was set aside for it.
            self._freed.clear()
            await self._freed.wait()
            if self.stopped:
                return 0
        answer, failure = None, ""
        try:
            answer = await self._server.ask(request, sent, read)
            self._keeper.keep([answer])
            self._spent.learn(answer, read)
            outcome.answered += 1
        except (TransientError, RefusedRequestError) as error:
            failure = str(error)
            outcome.failed[failure] = outcome.failed.get(failure, 0) + 1
        finally:
            self._spent.release(request.key, [answer] if answer else [])
            self._freed.set()
        self._watch.look(answer, failure)
        self.stopped = self.stopped or self._watch.stopped
        return 1


def _first(errors: BaseException) -> UserError:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    assert isinstance(errors, UserError)
    return errors
