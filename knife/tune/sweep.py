"""A sweep from plan to result: search, more seeds for the best, winner against finetune."""

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import Timeout

from knife.cluster.address import refuse_dead_cluster
from knife.cluster.capacity import capacity_errors, machine, session_errors
from knife.config.run import RunConfig
from knife.core.atomic import write_json
from knife.core.errors import UserError, WorkFailedError, raise_errors
from knife.core.words import counted
from knife.launch.session import session
from knife.pipeline.run import Result, measured, missing_stages, run, shown, tracking
from knife.report.run_page import NAME as REPORT
from knife.report.run_page import write_or_warn
from knife.stats.verdict import Verdict
from knife.store.disk import disk_errors
from knife.store.store import Store, fingerprint, store_root
from knife.terminal.display import display, no_display
from knife.track.destination import unsent
from knife.track.settings import mlflow_settings
from knife.tune.progress.sweep_progress import SweepProgress
from knife.tune.progress.sweep_tree import TREES, sweep_tree
from knife.tune.report.data import RESULT, TRIALS, SweepData
from knife.tune.report.outputs import write_outputs
from knife.tune.report.report import report_of, sweep_report
from knife.tune.search.about import ABOUT, SWEEP_VERSION, SweepAbout
from knife.tune.search.final import RECIPE, winner, write_recipe
from knife.tune.search.phases import Phases, reopen, trials_left
from knife.tune.search.resources import slots
from knife.tune.search.study import ranked
from knife.tune.search.sweep_plan import SweepPlan, refuse_what_has_no_room
from knife.tune.search.trials import TrialRow, first_line, read_rows


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep.

    Attributes:
        folder: its folder in the store.
        rows: the trials of the search, the best ones with more seeds.
        values: the result, JSON-ready: best trial, verdict, MLflow run.
        verdict: the winner against finetune on test; None if the sweep asks for none.
        fresh: whether this start did any of the work.
        links: other places to look, one line each.
    """

    folder: Path
    rows: list[TrialRow]
    values: dict[str, Any]
    verdict: Verdict | None
    fresh: bool
    links: Sequence[str] = ()

    @property
    def best(self) -> TrialRow:
        """The winning trial."""
        return next(row for row in self.rows if row.number == self.values["best"]["number"])


def sweep_key(plan: SweepPlan) -> str:
    """Return the fingerprint of a sweep, without the settings that may change from start to start:
    the budget and the number of concurrent trials."""
    sweep = plan.space.sweep.model_dump(exclude={"concurrent", "budget"})
    return fingerprint({"sweep": sweep, "base": plan.space.base, "version": SWEEP_VERSION})


def sweep_folder(plan: SweepPlan) -> Path:
    """Return a sweep's folder in the store."""
    return store_root(plan.config.store) / "sweeps" / plan.space.sweep.name


def open_sweep(plan: SweepPlan, *, resume: bool) -> SweepResult | None:
    """Return the result of a sweep that is done under its present budget; None if work is left.

    Raises:
        UserError: the folder belongs to another sweep or was written by another version, or
            `resume` is given and there is nothing to resume.
    """
    folder = sweep_folder(plan)
    about = folder / ABOUT
    Store(plan.config.store, write=False).recall(folder)
    if not about.is_file():
        if resume:
            what = "has no sweep of that name" if folder.parent.is_dir() else "does not exist"
            raise UserError(
                f"--resume: the store {folder.parents[1]} {what} ({plan.space.sweep.name}), so "
                "there is nothing to resume; start without --resume, or set store=…"
            )
        return None
    values = json.loads(about.read_text())
    if values["version"] != SWEEP_VERSION:
        raise UserError(
            f"{folder} was made by another version of this package (sweeps of version "
            f"{values['version']}, this one resumes version {SWEEP_VERSION}); give another name=…, "
            "or remove the folder: trained students stay in the store and are reused"
        )
    if values["key"] != sweep_key(plan):
        raise UserError(
            f"{folder} belongs to another sweep of that name (its file, base or overrides "
            "differ in more than budget and concurrent); give another name=…, or remove the "
            "folder: trained students stay in the store and are reused"
        )
    return None if trials_left(plan, folder) else read_result(folder)


def read_result(folder: Path) -> SweepResult | None:
    """Read the result from a sweep's folder; None if the sweep is not done."""
    if not (folder / RESULT).is_file():
        return None
    values = json.loads((folder / RESULT).read_text())
    found = Verdict.from_dict(values["final"]["verdict"]) if "final" in values else None
    links = [f"MLflow: {values['mlflow']['link']}"] if "mlflow" in values else []
    rows = read_rows(folder / TRIALS)
    return SweepResult(folder, rows, values, found, fresh=False, links=links)


def run_sweep(plan: SweepPlan, *, resume: bool = False, quiet: bool = False) -> SweepResult:
    """Run a sweep to its end, resuming it if it was interrupted; `quiet` hides the progress.

    Raises:
        UserError: the sweep, the store or the cluster is not usable as given.
        WorkFailedError: no trial succeeded.
    """
    from knife.train.follow import Follower

    done = open_sweep(plan, resume=resume)
    if done:
        _report_what_has_none(done, plan)
        return _sent_again(done, plan)
    config, folder = plan.config, sweep_folder(plan)
    raise_errors(session_errors(config.scale))
    refuse_what_has_no_room(plan)
    refuse_dead_cluster()
    store = Store(config.store)
    with disk_errors(store.root), _alone(store, folder.name):
        folder.mkdir(parents=True, exist_ok=True)
        if trials_left(plan, folder):
            reopen(folder, store)
        for each in plan.plans:
            missing_stages(each, store, repair=True)
        with tracking(config.track, store, TREES) as tracker:
            about = SweepAbout(folder, plan.space, sweep_key(plan), plan.plans[0])
            store.keep(folder)
            with about.until_the_end():
                links = shown(tracker, folder, partial(sweep_tree, folder, store, alive=True))
                with (
                    measured(tracker, folder),
                    _ray(config, links) as cluster,
                    Follower(store.address) as follower,
                ):
                    places = slots(config, cluster, plan.space.sweep)
                    with SweepProgress(
                        plan, about, follower, places, links, quiet=quiet
                    ) as progress:
                        phases = Phases(plan, folder, places, progress.phase)
                        rows = phases.search()
                        progress.judge(rows)
                        rows, values, met = _conclude(phases, rows, progress, quiet=quiet)
                if tracker:
                    mlflow = {"uri": tracker.uri, "run_id": tracker.run_id, "link": tracker.link()}
                    values["mlflow"] = mlflow
                about.end("finished")
                write_outputs(plan.space, rows, folder)
                done_now = SweepData(folder, store, about.values, rows, values)
                write_or_warn(folder, store, lambda: report_of(done_now))
                write_json(folder / TRIALS, [row.to_dict() for row in rows])
                write_json(folder / RESULT, values)
        unsent = [*(met.unsent if met else []), *(tracker.unsent() if tracker else [])]
        store.keep(folder)
    result = read_result(folder)
    assert result
    values = result.values | {"unsent": list(dict.fromkeys(unsent))}
    return replace(result, values=values, fresh=True, links=links)


def _report_what_has_none(done: SweepResult, plan: SweepPlan) -> None:
    """Write the report of a finished sweep that has none."""
    if (done.folder / REPORT).is_file():
        return
    store = Store(plan.config.store)
    if "sweep" not in json.loads((done.folder / ABOUT).read_text()):
        # It was run by a version that did not keep the sweep's settings.
        SweepAbout(done.folder, plan.space, sweep_key(plan), plan.plans[0]).end("finished")
    write_or_warn(done.folder, store, lambda: sweep_report(done.folder, store))
    store.keep(done.folder)


def _sent_again(done: SweepResult, plan: SweepPlan) -> SweepResult:
    """Send MLflow what it has missed of a finished sweep; `unsent` lists what it still lacks."""
    store = Store(plan.config.store, write=False)
    folders = [done.folder]
    if final := done.values.get("final"):
        folders.append(store.root / "runs" / f"{final['name']}-{final['key']}")
    missed = [folder for folder in unsent(store.root) if folder in folders]
    lines: list[str] = []
    if missed:
        with mlflow_settings():
            from knife.track.catch_up import catch_up
        found = catch_up(store, TREES, missed)
        lines = [*found.kept, *found.errors]
    return replace(done, values=done.values | {"unsent": lines})


def _conclude(
    phases: Phases, rows: list[TrialRow], progress: SweepProgress, *, quiet: bool
) -> tuple[list[TrialRow], dict[str, Any], Result | None]:
    """Train more seeds of the best trials, and compare the winner with finetune on test.

    Raises:
        WorkFailedError: no trial succeeded.
    """
    space = phases.plan.space
    if not ranked(space, rows):
        errors = dict.fromkeys(first_line(row.error) for row in rows if row.error)
        none = f"none of {counted(len(rows), 'trial')} succeeded"
        if not errors:
            raise WorkFailedError(
                f"{none}: the budget ended before the first one did; give a larger one (budget.…)"
            )
        raise WorkFailedError(
            f"{none}: {'; '.join(errors)}",
            f"failed trials are not tried again: change the sweep and give another name=…, or "
            f"remove {shlex.quote(str(phases.folder))} to try the same ones once more",
        )
    rows = phases.more_seeds(rows)
    progress.judge(rows)
    best = winner(space, rows)
    if best is None:
        errors = dict.fromkeys(first_line(row.error) for row in rows if row.error)
        raise WorkFailedError(f"no trial succeeded with all of its seeds: {'; '.join(errors)}")
    values: dict[str, Any] = {
        "name": space.sweep.name,
        "folder": str(phases.folder),
        "metric": space.sweep.metric,
        "best": best.to_dict(),
        "states": dict(Counter(row.state for row in rows)),
    }
    if not space.sweep.final:
        write_recipe(phases.folder / RECIPE, space.config(best.point), space, best)
        return rows, values, None
    config = phases.final(best, rows)
    write_recipe(phases.folder / RECIPE, config, space, best)
    progress.stop_drawing()
    met = run(config, no_display if quiet else display)
    return rows, values | {"final": met.to_dict()}, met


@contextmanager
def _alone(store: Store, name: str) -> Iterator[None]:
    """Hold the sweep's lock, since two drivers would count its trials twice."""
    try:
        with store.lock("sweep", name).acquire(timeout=0):
            yield
    except Timeout as error:
        raise UserError(
            f"name: another process is running the sweep {name!r} on this store; wait for its "
            "end, or give another name=…"
        ) from error


@contextmanager
def _ray(config: RunConfig, links: list[str]) -> Iterator[dict[str, float]]:
    """Start a Ray session that can run a trial, add its dashboard to `links`, and yield its
    resources."""
    with session(machine()["GPU"]) as found:
        import ray

        links += found

        raise_errors(capacity_errors(config.scale, ray.cluster_resources(), "the cluster"))
        yield ray.cluster_resources()
