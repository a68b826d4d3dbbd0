"""The order in which stages are made: of those whose inputs are there, the one with the longest way
to the end of the run first (list scheduling by critical path)."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Literal

from knife.core.errors import WorkFailedError
from knife.plan.stage import Stage, inputs, together

Artifact = tuple[str, str]


class Work:
    """Stages that are made at once, and what they wait for.

    Attributes:
        stages: the stages, of one kind.
        waits_for: the inputs of theirs that are still to be made.
        state: waiting (for inputs, or for a slot), under way, done, failed, or dropped: not wanted
            any more.
        error: why it failed.
    """

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages
        self.waits_for: set[Artifact] = set()
        self.state: Literal["waiting", "under way", "done", "failed", "dropped"] = "waiting"
        self.error: Exception | None = None

    @property
    def artifacts(self) -> list[Artifact]:
        """Kind and key of each stage."""
        return [(stage.kind, stage.key) for stage in self.stages]

    @property
    def label(self) -> str:
        """The stages in a few words."""
        first, *others = self.stages
        name = first.label.partition(", ")[0] if others else first.label
        return f"{name}, {len(self.stages)} parts" if others else name


class Schedule:
    """The stages that are still to be made; knows no clock and no machine.

    Args:
        seconds: estimates how long a stage takes; only the ratios of its answers matter.
    """

    def __init__(self, seconds: Callable[[Stage], float]) -> None:
        self._seconds = seconds
        self._works: list[Work] = []
        self._by_artifact: dict[Artifact, Work] = {}
        self._readers: dict[Artifact, list[Work]] = defaultdict(list)
        self._lengths: dict[Work, float] = {}

    def add(self, stages: Iterable[Stage]) -> list[Work]:
        """Add stages in the order in which equal ones are made. Each is new here, or was dropped,
        or was made and is gone.

        Every input that neither is among them nor was added before exists already.
        """
        works = [Work(group) for group in together(stages)]
        for work in works:
            for artifact in work.artifacts:
                known = self.find(artifact)
                assert known is None or known.state in ("done", "dropped")
                self._by_artifact[artifact] = work
        for work in works:
            read = {artifact for stage in work.stages for artifact in inputs(stage)}
            for artifact in read & self._by_artifact.keys():
                self._readers[artifact].append(work)
                if self._by_artifact[artifact].state != "done":
                    work.waits_for.add(artifact)
        self._works += works
        self._lengths.clear()
        return works

    def find(self, artifact: Artifact) -> Work | None:
        """Return what makes an artifact, or has made it; None if that was never added."""
        return self._by_artifact.get(artifact)

    def ready(self) -> list[Work]:
        """Return what could be made now, what should be made first first."""
        found = [work for work in self._works if work.state == "waiting" and not work.waits_for]
        return sorted(found, key=self._length, reverse=True)

    def take(self) -> Work | None:
        """Return what should be made now, which is under way from here on; None if nothing can."""
        ready = self.ready()
        if not ready:
            return None
        ready[0].state = "under way"
        return ready[0]

    def put_back(self, work: Work) -> None:
        """Let something that was under way wait for a slot again."""
        work.state = "waiting"

    def done(self, work: Work) -> None:
        """Note that something is made, so that what reads it can be."""
        work.state = "done"
        for artifact in work.artifacts:
            for reader in self._readers[artifact]:
                reader.waits_for.discard(artifact)
        # The measured rates have changed.
        self._lengths.clear()

    def failed(self, work: Work, error: Exception) -> list[Work]:
        """Note why something cannot be made; return what cannot be made because of it."""
        work.state, work.error = "failed", error
        lost: list[Work] = []
        for reader in self._waiting_readers(work):
            needs = WorkFailedError(f"{reader.label} needs {work.label}, which failed")
            # What failed first is the reason.
            needs.__cause__ = error.__cause__ or error
            lost += [reader, *self.failed(reader, needs)]
        return lost

    def drop(self, work: Work) -> None:
        """Note that something is not wanted any more, and with it what reads it."""
        work.state = "dropped"
        for reader in self._waiting_readers(work):
            self.drop(reader)

    def unfinished(self) -> list[Work]:
        """Return what waits or is under way."""
        return [work for work in self._works if work.state in ("waiting", "under way")]

    def width(self) -> int:
        """Return the most stages (or groups of them) that are ever under way at a time if each
        starts as soon as its inputs are there, by estimate."""
        ends: dict[Work, float] = {}
        moments: list[tuple[float, int]] = []
        # Stages come after those that they read.
        for work in self.unfinished():
            inputs_of = [self._by_artifact[artifact] for artifact in work.waits_for]
            start = max((ends[each] for each in inputs_of), default=0.0)
            ends[work] = start + max(map(self._seconds, work.stages))
            moments += [(start, 1), (ends[work], -1)]
        return max(accumulate(change for _, change in sorted(moments)), default=0)

    def _waiting_readers(self, work: Work) -> Iterator[Work]:
        """Yield what waits for something, and still does by then."""
        for artifact in work.artifacts:
            for reader in self._readers[artifact]:
                if reader.state == "waiting":
                    yield reader

    def _length(self, work: Work) -> float:
        """Return the seconds from the start of `work` to the end of all that depends on it."""
        if work not in self._lengths:
            readers = (reader for artifact in work.artifacts for reader in self._readers[artifact])
            after = max(map(self._length, readers), default=0.0)
            # The states of a teacher are computed in one pass over the data.
            self._lengths[work] = max(map(self._seconds, work.stages)) + after
        return self._lengths[work]
