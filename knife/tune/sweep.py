"""A sweep from plan to result: search, more seeds for the best, winner against finetune."""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import Timeout

from knife.cluster.address import refuse_dead_cluster
from knife.cluster.capacity import session_errors
from knife.config.run import RunConfig
from knife.core.atomic import write_json
from knife.core.errors import UserError, WorkFailedError, raise_errors
from knife.core.words import counted
from knife.data.example import Splits
from knife.launch.executor import Executor
from knife.pipeline.run import measured, missing_stages, run, shown, tracking
from knife.pipeline.timeline import Timeline
from knife.plan.needs import worker_bytes
from knife.plan.pace import Pace
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
from knife.tune.search.phase import Workshop
from knife.tune.search.phases import Phases, reopen, trials_left
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
                data = {key: splits for each in plan.plans for key, splits in each.data.items()}
                with measured(tracker, folder):
                    with (
                        _executor(plan, data, links) as executor,
                        Follower(store.address) as follower,
                        SweepProgress(
                            plan, about, follower, executor.slots, links, quiet=quiet
                        ) as progress,
                    ):
                        workshop = Workshop(executor, data, store, Timeline(folder))
                        phases = Phases(plan, folder, workshop, progress.phase)
                        rows = phases.search()
                        progress.judge(rows)
                        rows, values, final = _conclude(phases, rows, progress)
                    met = run(final, no_display if quiet else display) if final else None
                values |= {"final": met.to_dict()} if met else {}
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
    phases: Phases, rows: list[TrialRow], progress: SweepProgress
) -> tuple[list[TrialRow], dict[str, Any], RunConfig | None]:
    """Train more seeds of the best trials, and the winner and finetune with the final seeds;
    return the config of the run that compares these on test, if the sweep asks for it.

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
    return rows, values, config


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


def _executor(plan: SweepPlan, data: dict[str, Splits], links: list[str]) -> Executor:
    """Return what makes the stages of all trials; `links` gets lines on where else to look."""
    scale, concurrent = plan.config.scale, plan.space.sweep.concurrent
    need = max(worker_bytes(each.needs, each.stages, scale) for each in plan.plans)
    # As many at a time as there is room for, however many trials are left.
    width = concurrent or sys.maxsize
    return Executor(plan.config.store, scale, Pace(data), width=width, need=need, links=links)
