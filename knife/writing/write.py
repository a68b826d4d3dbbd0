"""Has a language model write rationales, and publishes them as a folder of data."""

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from knife.core.alone import alone
from knife.core.errors import UserError
from knife.core.exits import Terminated, say
from knife.core.words import counted
from knife.data.examples import explained_count
from knife.data.written import FOLDER, LICENCE, REJECTED, words_on
from knife.terminal.counter import counter
from knife.writing.asking import Asker, Outcome, Spent
from knife.writing.filters import judge
from knife.writing.job import Job, with_answers
from knife.writing.kept import Keeper
from knife.writing.local import LocalAsker
from knife.writing.publish import publish
from knife.writing.request import Request, tokens_in
from knife.writing.server import Secret
from knife.writing.workers import Work, ask_in_workers


@dataclass(frozen=True)
class DryRun:
    """What would be asked for.

    Attributes:
        requests: their number.
        answered: how many more are answered already.
        read, written: their tokens: estimates of those that are read, the most that are written.
        money: the most that they cost; None if no price is given.
        minutes: the least time that the rate allows; None if there is no rate.
        first: the messages of the first request.
    """

    requests: int
    answered: int
    read: int
    written: int
    money: float | None
    minutes: float | None
    first: list[dict[str, str]]

    def lines(self) -> list[str]:
        """Return it as lines of text."""
        lines = [f"requests: {self.requests:,} ({self.answered:,} are answered already)"]
        if not self.requests:
            return lines
        lines += [
            f"tokens: about {self.read:,} to read, at most {self.written:,} to write",
        ]
        if self.money is not None:
            lines.append(f"price: at most {self.money:,.2f}")
        if self.minutes is not None:
            lines.append(f"time at the given rate: {self.minutes:,.1f} minutes or more")
        for message in self.first:
            lines += ["", f"{message['role']}:", message["content"]]
        return lines


def dry_run(job: Job) -> DryRun:
    """Return what would be asked for, without asking."""
    settings, prompt = job.settings, job.prompt
    read = sum(tokens_in(prompt.messages(each.example, each.kind)) for each in job.missing)
    written = len(job.missing) * settings.longest
    rate = settings.rate
    times = [
        amount / most
        for amount, most in ((len(job.missing), rate.requests), (read + written, rate.tokens))
        if most
    ]
    first = job.missing[:1]
    return DryRun(
        requests=len(job.missing),
        answered=len(job.keys) - len(job.missing),
        read=read,
        written=written,
        money=settings.cost(read, written) if settings.price else None,
        minutes=max(times, default=None),
        first=[m for each in first for m in prompt.messages(each.example, each.kind)],
    )


@dataclass(frozen=True)
class Result:
    """What came of it.

    Attributes:
        record: what was published; None if nothing was, since nothing is answered.
        lines: what a user should know.
        failures: why some questions are not answered, or no rationale came of it; empty if neither.
    """

    record: dict[str, Any] | None
    lines: list[str]
    failures: list[str]


def write(job: Job) -> Result:
    """Ask for what is missing, judge all answers, and publish the folder.

    Answers are kept as they come. Whatever ends this early, the next call goes on from there.

    Raises:
        UserError: the server cannot be reached or will answer no request, another command writes
            into the folder, or it is not writable.
    """
    with alone(job.out / FOLDER, "--out", job.out, "give another folder"):
        job.answers.mkdir(exist_ok=True)
        # Another command may have asked since the job was planned.
        job = with_answers(job)
        outcome = _ask(job) if job.missing else Outcome()
        job = with_answers(job)
        judged = {
            split: judge(job.settings, wanted, job.kept.answers)
            for split, wanted in job.requests.items()
        }
        failures = _unanswered(job, outcome)
        if not any(judged.values()):
            return Result(None, [], failures)
        record = publish(job, judged)
        return Result(record, _lines(job, record), failures + _useless(record))


def _ask(job: Job) -> Outcome:
    settings = job.settings
    key = Secret((os.environ.get(settings.key) or "").strip() if settings.url else None)
    if key.value and not (key.value.isascii() and key.value.isprintable()):
        raise UserError(
            f"write.key: the environment variable {settings.key} holds more than the letters of a "
            "key, such as a line break"
        )
    work = Work(settings, job.prompt, key, job.answers, job.model.folder if job.model else None)
    answered = len(job.keys)
    if len(job.missing) < answered:
        say(
            f"{answered - len(job.missing):,} of {answered:,} requests are already answered; "
            "resuming …"
        )
    with counter("asking", len(job.missing), "requests") as count:
        if settings.workers is None:
            outcome = _ask_here(work, job, count)
        else:
            # What is wrong with a server is told before workers start.
            first = 0 if job.model else 1
            outcome = _ask_server(work, job, job.missing[:first], count) if first else Outcome()
            others, work = job.missing[first:], replace(work, first=job.missing[:first])
            if others and not outcome.stopped:
                outcome.add(ask_in_workers(work, others, settings.workers, count))
    for reason, number in outcome.resent.items():
        say(f"note: sent again: {counted(number, 'request')} ({reason})")
    return outcome


def _ask_here(work: Work, job: Job, count: Callable[[int], None]) -> Outcome:
    """Ask for everything from this process."""
    if job.model is None:
        return _ask_server(work, job, job.missing, count)
    keeper = Keeper(work.folder)
    try:
        spent = Spent(work.settings, job.kept.read, job.kept.written)
        asker = LocalAsker(work.settings, job.model.folder, work.prompt, keeper, spent)
        return asker.ask(job.missing, count)
    finally:
        keeper.close()


def _ask_server(
    work: Work, job: Job, requests: Sequence[Request], count: Callable[[int], None]
) -> Outcome:
    async def ask() -> Outcome:
        keeper = Keeper(work.folder)
        spent = Spent(work.settings, job.kept.read, job.kept.written)
        asker = Asker(work.settings, work.prompt, work.key, keeper, spent)
        try:
            return await asker.ask(requests, count)
        finally:
            await asker.close()
            keeper.close()

    return _run(ask())


def _run(work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run a coroutine, which SIGTERM ends as Ctrl-C does: an exception that is raised amid a loop's
    own work would have it end with tracebacks.

    Raises:
        Terminated: SIGTERM came.
    """
    before, terminated = signal.getsignal(signal.SIGTERM), False

    async def until_terminated() -> Outcome:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task

        def end() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        if threading.current_thread() is threading.main_thread():
            loop.add_signal_handler(signal.SIGTERM, end)
        return await work

    try:
        return asyncio.run(until_terminated())
    except asyncio.CancelledError:
        if terminated:
            raise Terminated from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _lines(job: Job, record: Mapping[str, Any]) -> list[str]:
    """Return what was written and what it took."""
    lines = [
        f"{job.out / split}.jsonl: {words_on(record, counts)}"
        for split, counts in record["splits"].items()
    ]
    if record["analysis"]:
        lines.append(f"{job.out / FOLDER}/test.jsonl: {words_on(record, record['analysis'])}")
    tokens = record["tokens"]
    used = f"tokens in all: {tokens['read']:,} read, {tokens['written']:,} written"
    lines.append(used + ("" if tokens["counted"] else " (estimated: the server did not count)"))
    if record["cost"] is not None:
        lines[-1] += f"; {record['cost']:,.2f} at the given price"
    if job.settings.splits == ["train"] and not explained_count(job.splits.dev):
        lines.append(
            "note: dev has no rationales, so that a teacher's best epoch is found without them; "
            "write.splits=[train,dev] has them written too"
        )
    return [*lines, f"note: {LICENCE}"]


def _useless(record: Mapping[str, Any]) -> list[str]:
    """Return the error if no text became a rationale."""
    counts = record["splits"].values()
    if any(of["written"] for of in counts):
        return []
    dropped = Counter[str]()
    for of in counts:
        dropped.update(of["dropped"])
    return [
        "no text became a rationale: "
        + ", ".join(f"{reason} {number:,}" for reason, number in dropped.most_common()),
        f"they are in {FOLDER}/{REJECTED}; change write.prompt, write.max_tokens or write.drop",
    ]


def _unanswered(job: Job, outcome: Outcome) -> list[str]:
    """Return why requests are not answered, and what to do."""
    asked = job.keys
    left = len(asked - job.kept.answers.keys())
    if not left:
        return []
    lines = [f"{left:,} of {counted(len(asked), 'request')} are not answered"]
    lines[0] += f": {outcome.stopped}" if outcome.stopped else ""
    for reason, number in sorted(outcome.failed.items(), key=lambda item: -item[1])[:5]:
        lines.append(f"{counted(number, 'request')}: {reason}")
    return [*lines, "all answers are kept: run the same command again to ask for the others"]
