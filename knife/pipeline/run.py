"""A run from config to verdict: plan, make what the store lacks, track, conclude."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knife.cluster.address import refuse_dead_cluster
from knife.config.run import RunConfig
from knife.config.track import Track
from knife.core.atomic import write_json
from knife.core.errors import UserError, WorkFailedError, raise_errors
from knife.data.fitting import too_long_note
from knife.pipeline.record import Record, plan_record
from knife.pipeline.settle import settle
from knife.pipeline.timeline import Timeline
from knife.plan.events import Event, Failed
from knife.plan.needs import (
    find_room,
    free_disk,
    room_errors,
    room_notes,
    states_errors,
    worker_bytes,
)
from knife.plan.pace import Pace
from knife.plan.plan import Plan, needed, plan_run
from knife.plan.schedule import Schedule
from knife.plan.sources import SourceReader
from knife.plan.stage import Stage, data_inputs, inputs
from knife.report.run_data import RECORD
from knife.stats.ties import Ties, tie_notes
from knife.stats.verdict import Ceiling, Verdict, baseline_of, verdict
from knife.store.bucket import is_url
from knife.store.disk import disk_errors
from knife.store.store import Store, store_root
from knife.track.run_tree import run_tree
from knife.track.secrets import redact_values
from knife.track.settings import mlflow_settings
from knife.train.results import accuracy, read_predictions

# MLflow and DeepSpeed take seconds to import, and finding what is missing needs neither.
if TYPE_CHECKING:
    from knife.track.catch_up import Trees
    from knife.track.tracker import Tracker


@dataclass(frozen=True)
class Student:
    """A student of a run; `folder` is where it is stored, a folder or a url."""

    method: str
    seed: int
    key: str
    folder: str


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
        plan: the run as stages.
        made: the stages that this start made; empty when the store had all of them.
        verdict: the comparison of methods.
        store: the artifact store.
        folder: where config and verdict are stored on this host.
        tracking: MLflow's uri, without secrets, and the run's id; None if it records nothing.
        unsent: what could not be sent to MLflow, one line each.
        links: where else to look, one line each.
        failures: why stages could not be made, one line each; students may be missing then.
    """

    plan: Plan
    made: list[Stage]
    verdict: Verdict
    store: Store
    folder: Path
    tracking: tuple[str, str | None] | None
    unsent: list[str]
    links: list[str]
    failures: list[str]

    @property
    def students(self) -> list[Student]:
        """The students, one per method and seed."""
        folder = f"{self.store.address}/student"
        return [
            Student(m.method, m.seed, m.student.key, f"{folder}/{m.student.key}")
            for m in self.plan.members
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict."""
        return {
            "name": self.plan.config.name,
            "key": self.plan.key,
            "store": self.store.address,
            "mlflow": dict(zip(("uri", "run_id"), self.tracking, strict=True))
            if self.tracking
            else None,
            "made": [{"kind": s.kind, "key": s.key, "label": s.label} for s in self.made],
            "students": [asdict(student) for student in self.students],
            "notes": self.plan.notes,
            "failures": self.failures,
            "verdict": self.verdict.to_dict(),
        }


Show = Callable[[Event], None]
# A context in which stages are made, which yields a function that is told what happens. It shows
# that, and links as they are added, until it ends.
Display = Callable[[list[Stage], Plan, Pace, list[str]], AbstractContextManager[Show]]


def missing_stages(plan: Plan, store: Store, *, repair: bool) -> tuple[list[Stage], list[str]]:
    """Return the stages that the store lacks, and a line for each damaged artifact.

    With `repair`, damaged artifacts are removed from the store, and so are made again.
    """
    have = store.have(plan.stages)
    checked: set[tuple[str, str]] = set()
    notes: list[str] = []
    while True:
        missing = needed(plan.stages, have)
        read = {artifact for stage in missing for artifact in inputs(stage)}
        read |= {(s.kind, s.key) for s in plan.stages if s.kind == "evaluate"}
        fresh = (read & have) - checked
        if not fresh:
            return missing, notes
        for artifact in sorted(fresh):
            checked.add(artifact)
            damaged = store.damage(*artifact)
            if damaged:
                have.discard(artifact)
                notes.append(f"{'/'.join(artifact)} is damaged ({', '.join(damaged)}): made again")
                if repair:
                    store.discard(*artifact)


def run(config: RunConfig, display: Display) -> Result:
    """Make a run: only what the store lacks.

    A student that diverges or cannot be made for another reason ends alone: the result lists it,
    and the verdict is about the others.

    Raises:
        UserError: config, data, models, store or cluster are wrong.
        WorkFailedError: no student could be made.
    """
    from knife.report.cards import write_cards
    from knife.report.run_page import NAME as REPORT
    from knife.report.run_page import run_report, write_or_warn

    reader, before = SourceReader(), Before(config.store, display)
    settled = settle(config, reader, before)
    plan = plan_run(settled.config, reader)
    if settled.config is not config:
        # Known before, and thus where a forecast was kept.
        plan.key = plan_run(config, reader).key
    refuse_what_cannot_fit(plan)
    store = Store(config.store)
    with disk_errors(store.root):
        missing, damaged = prepared(plan, store)
        plan.notes += before.notes + damaged + tracking_notes(config)
        made = [*before.made, *missing]
        folder = plan.folder
        folder.mkdir(parents=True, exist_ok=True)
        # Without the password of a tracking server.
        resolved = redact_values(config.model_dump(mode="json"))
        write_json(folder / "config.json", resolved)
        with tracking(config.track, store, {"runs": run_tree}) as tracker:
            about = plan_record(plan, store) | settled.record()
            kept = Record(folder / RECORD, about, [stage.key for stage in made])
            with kept.until_the_end():
                links = shown(tracker, folder, partial(run_tree, folder, store, alive=True))
                failures: list[str] = []
                if missing:
                    with measured(tracker, folder):
                        failures = make(missing, plan, links, display, Timeline(folder).add)
                found = conclude(plan, store, failures)
                found = replace(found, notes=(*settled.sentences, *found.notes))
                write_json(folder / "verdict.json", found.to_dict())
                write_cards(plan, store, found, anew=bool(made))
                kept.end(f"failed: {failures[0]}" if failures else "finished")
                # A start that had nothing to do adds nothing to the report.
                if not (kept.idle and (folder / REPORT).is_file()):
                    write_or_warn(folder, store, lambda: run_report(folder, store))
        unsent = tracker.unsent() if tracker else []
        store.keep(folder)
    address = (tracker.uri, tracker.run_id) if tracker else None
    return Result(plan, made, found, store, folder, address, unsent, links, failures)


class Before:
    """Makes what is needed to decide what a run's config leaves open.

    Attributes:
        made: the stages that were made.
        notes: what a user should know, one sentence each: what was damaged or could not be made.
    """

    def __init__(self, address: str, display: Display) -> None:
        self.made: list[Stage] = []
        self.notes: list[str] = []
        self._address, self._display = address, display

    def __call__(self, plan: Plan) -> Store:
        """Make what the store lacks of a plan, as far as possible.

        Raises:
            UserError: memory, disk or cluster do not suffice, or the user's input is wrong.
        """
        refuse_what_cannot_fit(plan)
        store = Store(self._address)
        with disk_errors(store.root):
            missing, damaged = prepared(plan, store)
            self.made += missing
            self.notes += damaged
            if missing:
                self.notes += make(missing, plan, [], self._display)
        return store


def prepared(plan: Plan, store: Store) -> tuple[list[Stage], list[str]]:
    """Put the plan's data into the store and return what `missing_stages` finds, with repair.

    Raises:
        UserError: the cluster that would make the missing stages does not answer.
    """
    publish_data(store, plan)
    missing, damaged = missing_stages(plan, store, repair=True)
    if missing and plan.config.scale.launcher == "ray":
        refuse_dead_cluster()
    return missing, damaged


def refuse_what_cannot_fit(plan: Plan) -> None:
    """Check that memory and disk have room for what the store lacks; what is only likely to run
    out is noted in the plan. Nothing is written, and no file is read in full.

    Raises:
        UserError: they have too little room.
    """
    address, scale = plan.config.store, plan.config.scale
    store = Store(address, write=False)
    have = store.have(plan.stages)
    stages = needed(plan.stages, have)
    room = find_room(scale)
    errors = room_errors(plan.needs, stages, scale, room)
    # With a bucket, states are on the disks of the workers' hosts, which may be other hosts.
    if not is_url(address):
        errors += states_errors(plan.needs, stages, store.root, free_disk(store.root))
    raise_errors(errors)
    plan.notes += room_notes(plan.needs, stages, room)


def make(
    stages: list[Stage],
    plan: Plan,
    links: list[str],
    display: Display,
    also: Show = lambda _: None,
) -> list[str]:
    """Make stages of a plan, on Ray or in this process, and return why some could not be made.

    `also` is told of each event, as the display is.

    Raises:
        UserError: the user's input is wrong; what was under way has checkpoints.
    """
    pace, failures = Pace(plan.data), []
    with (
        display(stages, plan, pace, links) as show,
        closing(_events(stages, plan, pace, links)) as events,
    ):
        for event in events:
            show(event)
            also(event)
            if isinstance(event, Failed):
                if isinstance(event.error, UserError):
                    raise event.error
                # What only needs a failed stage is missing too, but is no reason.
                if not isinstance(event.error, WorkFailedError):
                    failures.append(str(event.error))
    return failures


def _events(stages: list[Stage], plan: Plan, pace: Pace, links: list[str]) -> Generator[Event]:
    config = plan.config
    if config.scale.launcher == "process":
        from knife.train.in_process import in_process

        yield from in_process(stages, config.store, config.scale)
        return
    from knife.launch.executor import Executor

    whole = Schedule(pace.seconds)
    whole.add(plan.stages)
    need = worker_bytes(plan.needs, plan.stages, config.scale)
    executor = Executor(
        config.store, config.scale, pace, width=whole.width(), need=need, links=links
    )
    executor.add(stages)
    with executor:
        yield from executor


def conclude(plan: Plan, store: Store, failures: Sequence[str] = ()) -> Verdict:
    """Compute the verdict from the stored predictions alone.

    Raises:
        WorkFailedError: there are none, due to `failures`.
    """
    rights: dict[str, dict[int, dict[str, float]]] = {}
    ties: dict[str, list[Ties]] = {}
    have = store.have(plan.stages)
    missing = []
    for member in plan.members:
        if ("evaluate", member.evaluate.key) not in have:
            missing.append(f"{member.method} seed {member.seed}")
            continue
        rows = read_predictions(store, member.evaluate.key)
        right = {row["id"]: row["right"] for row in rows}
        rights.setdefault(member.method, {})[member.seed] = right
        ties.setdefault(member.method, []).append(Ties.of(rows))
    if not rights:
        raise WorkFailedError(*failures)
    ceiling = None
    asked = {name: each for name, each in plan.ceiling.items() if ("evaluate", each.key) in have}
    if asked:
        found = {name: accuracy(store, stage.key) for name, stage in asked.items()}
        ceiling = Ceiling(found.get("with"), found.get("without"))
    for name, stage in asked.items():
        ties[f"teacher, {name} rationale"] = [Ties.of(read_predictions(store, stage.key))]
    settings = plan.config.compare
    baseline = baseline_of(settings.baseline, rights)
    # Results on part of a test split are not comparable to those on all of it.
    tests = [(s.left_out["test"], len(s.test)) for s in plan.data.values() if "test" in s.left_out]
    smaller = [
        f"The test split is smaller than the source's: {too_long_note('test', left_out, kept)}."
        for left_out, kept in dict.fromkeys(tests)
    ]
    lost = [f"Missing, since they could not be made: {', '.join(missing)}."] if missing else []
    # Only methods that share a seed with the baseline can be compared.
    seeds = rights.get(baseline, {}).keys()
    shared = {name: found for name, found in rights.items() if not seeds or seeds & found.keys()}
    made = verdict(shared, baseline, ceiling, settings.margin, tie_notes(ties))
    return replace(made, notes=(*lost, *smaller, *made.notes))


def publish_data(store: Store, plan: Plan) -> None:
    """Put the data of a plan, and its tokens, into the store if it lacks them or they are damaged.

    Planning has put them into the store's folder on this host; into a bucket they are uploaded.

    Raises:
        UserError: they were removed or damaged since then.
    """
    assert plan.prepared
    for kind, key in sorted({each for stage in plan.stages for each in data_inputs(stage)}):
        with store.lock(kind, key):
            if store.has(kind, key) and not store.damage(kind, key):
                continue
            if store.has(kind, key):
                store.discard(kind, key)
            try:
                plan.prepared.copy(kind, key, store.work(kind, key))
            except FileNotFoundError:
                store.drop_work(kind, key)
                raise UserError(
                    f"store: {kind}/{key} was removed or damaged after it had been planned with: "
                    "run the same command again, which makes it again"
                ) from None
            store.publish(kind, key, {"key": key})


def tracking_notes(config: RunConfig) -> list[str]:
    """Return notes for the user on where MLflow records."""
    track = config.track
    if track is None or track.uri or os.environ.get("MLFLOW_TRACKING_URI"):
        return []
    if not is_url(config.store):
        return []
    return [
        "store is a bucket and track.uri is null: MLflow records in a file of this host alone "
        f"({store_root(config.store) / 'mlflow.db'}); give a server to keep it elsewhere"
    ]


@contextmanager
def tracking(track: Track | None, store: Store, trees: "Trees") -> Iterator["Tracker | None"]:
    """Yield a tracker for what is made inside; None, and no MLflow, without `track`."""
    if track is None:
        yield None
        return
    with mlflow_settings():
        from knife.track.tracker import Tracker
    with Tracker(track.uri, store, track.experiment, trees) as tracker:
        yield tracker


def shown(tracker: "Tracker | None", folder: Path, tree: Callable[[], Any]) -> list[str]:
    """Show the run or sweep in a folder in MLflow, and return a line with the link to it."""
    if tracker is None:
        return []
    tracker.show(folder, tree)
    return [f"MLflow: {tracker.link()}"]


@contextmanager
def measured(tracker: "Tracker | None", folder: Path) -> Iterator[None]:
    """Record system metrics of this machine meanwhile, if they are shown in MLflow."""
    if tracker is None:
        yield
        return
    from knife.track.system import system_metrics

    with system_metrics(folder):
        yield
