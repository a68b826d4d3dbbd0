"""The actor that starts the worker groups of all slots, and through which they get their work."""

import threading
from collections import deque
from typing import Any, Literal

import ray

from knife.compat.ray import prepare_trainers
from knife.launch.slot import CLOSED, Slot, fit
from knife.store.store import Store

What = Literal["ready", "begun", "evaluated", "made", "pruned", "failed", "ended"]
# Slot, number of its work, what happened, and a value: epoch and metrics of an evaluation; the
# seconds that stages took; the name and lines of an error; why a worker group has ended, or None.
Post = tuple[int, int, What, Any]


class Groups:
    """Starts worker groups, holds the work of each until it is done, and what they say about it.

    A worker group that replaces a lost one is given the slot's work again. Work has a number of its
    own, so that what is said late about earlier work does no harm.
    """

    def __init__(self) -> None:
        # Trainers start in a thread each.
        prepare_trainers()
        self._work: dict[int, tuple[int, Any]] = {}
        self._posts: deque[Post] = deque()
        # By slot, number of its work, and epoch.
        self._answers: dict[tuple[int, int, int], bool] = {}
        self._changed = threading.Condition()

    def start(self, slot: Slot) -> None:
        """Start a slot's worker group; a post says when it has ended."""

        def work() -> None:
            found = fit(slot, Store(slot.address, write=False))
            with self._changed:
                self._posts.append((slot.number, slot.start, "ended", found))
                self._changed.notify_all()

        threading.Thread(target=work, name=f"knife-slot-{slot.number}", daemon=True).start()

    def ready(self, slot: int, start: int) -> None:
        """Tell the driver that a slot's workers have started."""
        with self._changed:
            self._posts.append((slot, start, "ready", None))
            self._changed.notify_all()

    def give(self, slot: int, number: int, work: Any) -> None:
        """Give a slot work with a number, or `CLOSED`."""
        with self._changed:
            self._work[slot] = (number, work)
            self._changed.notify_all()

    def withdraw(self, slot: int, number: int) -> None:
        """Take back work that a slot has not begun."""
        with self._changed:
            if self._makes(slot, number):
                del self._work[slot]

    def take(self, slot: int, seconds: float) -> tuple[int, Any] | None:
        """Return a slot's work and its number; None if it has none within some seconds."""
        with self._changed:
            self._changed.wait_for(lambda: slot in self._work, seconds)
            return self._work.get(slot)

    def post(self, slot: int, number: int, what: What, value: Any = None) -> None:
        """Tell the driver something about a slot's work."""
        with self._changed:
            if not self._makes(slot, number):
                return
            if what != "begun":
                del self._work[slot]
                self._answers = {at: value for at, value in self._answers.items() if at[0] != slot}
            self._posts.append((slot, number, what, value))
            self._changed.notify_all()

    def ask(self, slot: int, number: int, evaluation: tuple[int, dict[str, float]]) -> bool:
        """Ask the driver whether a training goes on after an evaluation, and wait for its answer.
        A training that the driver does not wait for goes on: it is ended in another way."""
        at = slot, number, evaluation[0]
        with self._changed:
            if not self._makes(slot, number):
                return True
            self._posts.append((slot, number, "evaluated", evaluation))
            self._changed.notify_all()
            self._changed.wait_for(lambda: at in self._answers or not self._makes(slot, number))
            return self._answers.get(at, True)

    def answer(self, slot: int, number: int, epoch: int, goes_on: bool) -> None:
        """Answer what a slot asked about its work after an epoch."""
        with self._changed:
            self._answers[slot, number, epoch] = goes_on
            self._changed.notify_all()

    def _makes(self, slot: int, number: int) -> bool:
        """Whether a slot still has the work with this number."""
        known, work = self._work.get(slot, (None, None))
        return known == number and work != CLOSED

    def receive(self, seconds: float) -> list[Post]:
        """Return what was told since the last time; nothing if that takes more than some
        seconds."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._posts), seconds)
            posts = list(self._posts)
            self._posts.clear()
            return posts


def open_groups(name: str, slots: int, environment: dict[str, str]) -> Any:
    """Start the actor on this host, for so many slots; it ends with its last handle."""
    here = ray.get_runtime_context().get_node_id()
    actor = ray.remote(num_cpus=0, label_selector={"ray.io/node-id": here})(Groups)
    return actor.options(
        name=name,
        # Every slot may wait for work while it tells something, and the driver waits for news.
        max_concurrency=2 * slots + 10,
        runtime_env={"env_vars": environment},
    ).remote()
