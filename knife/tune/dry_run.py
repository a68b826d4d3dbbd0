"""What a sweep would do: trials, teachers, stored results, time and cost. Writes nothing."""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from knife.cluster.address import cluster_address
from knife.cluster.capacity import Host, capacity_errors, groups_that_fit, machine, start_errors
from knife.config.overrides import describe
from knife.core.words import counted
from knife.plan.plan import Plan
from knife.plan.stage import Stage, together
from knife.store.store import Store
from knife.terminal.console import clock
from knife.tune.estimate import Stopwatch
from knife.tune.search.sweep_plan import SweepPlan, refuse_what_has_no_room
from knife.tune.sweep import open_sweep, sweep_folder


@dataclass(frozen=True)
class SweepDryRun:
    """What `knife tune` would do with a sweep.

    Attributes:
        name: the sweep's name.
        state: new, begun or done.
        trials: number of trials; a maximum if optuna suggests the points.
        students: student trainings by phase: search, more seeds, winner and finetune.
        stored_students: how many of the search's students are in the store; None if unknown.
        teachers: distinct teachers, `stored_teachers` of them in the store.
        own_teachers: keys that give every trial its own teacher.
        slots: trials that run at a time, each with `workers` workers of `gpus` GPUs.
        seconds: estimated duration if every trial runs to its last epoch.
        gpu_hours: estimated cost, if trials use GPUs.
        refused: combinations that are left out, with the reasons.
        notes: what a user should know, one sentence each.
    """

    name: str
    state: str
    folder: str
    trials: int
    students: dict[str, int]
    stored_students: int | None
    teachers: int
    stored_teachers: int
    own_teachers: list[str]
    slots: int
    workers: int
    gpus: float
    seconds: float
    gpu_hours: float
    refused: list[dict[str, Any]]
    notes: list[str]


def dry_run(plan: SweepPlan) -> SweepDryRun:
    """Check a sweep's store and time a step of each kind of training.

    Raises:
        UserError: as for the sweep: its folder belongs to another sweep, or a trial does not fit
            into memory or on disk.
    """
    sweep, scale = plan.space.sweep, plan.config.scale
    folder = sweep_folder(plan)
    done = open_sweep(plan, resume=False)
    if not done:
        refuse_what_has_no_room(plan)
    state = "done" if done else "begun" if folder.is_dir() else "new"
    store = Store(plan.config.store, write=False)
    taught = [member.student for each in plan.plans for member in each.members]
    have = store.have([*plan.shared, *taught])
    stored = sum(("teacher", teacher.key) in have for teacher in plan.teachers)
    ready = None
    if plan.points is not None:
        ready = sum(("student", student.key) in have for student in taught)
    students = _students(plan)
    here = machine()
    places = groups_that_fit(scale, [Host(here["CPU"], here["GPU"], 0)], need=0)
    places = min(places, sweep.concurrent or places)
    watch = Stopwatch()
    teaching = sum(watch.seconds(stage, p) for p, stage in _teaching(plan, have))
    each = fmean(
        fmean(watch.seconds(m.student, p) for m in p.members) for p in plan.plans if p.members
    )
    left = sum(students.values()) - (ready or 0)
    work = teaching * (plan.trials if plan.own_teachers else 1) + left * each
    notes = [*plan.notes, *(note for p in plan.plans for note in p.notes), *watch.notes()]
    if plan.own_teachers:
        notes.append(
            f"{', '.join(plan.own_teachers)}: every trial trains its own teacher, since the key "
            "changes the teacher and is drawn from a range; with choice, trials share teachers"
        )
    notes += [f"it could not start: {error}" for error in start_errors()]
    if not cluster_address():
        errors = capacity_errors(scale, here, "this machine")
        notes += [f"this machine cannot run it: {error}" for error in errors]
        if errors:
            notes.append("times assume one CPU of this machine for each worker")
    return SweepDryRun(
        name=sweep.name,
        state=state,
        folder=str(folder),
        trials=plan.trials,
        students=students,
        stored_students=ready,
        teachers=plan.trials if plan.own_teachers else len(plan.teachers),
        stored_teachers=stored,
        own_teachers=plan.own_teachers,
        slots=places,
        workers=scale.workers,
        gpus=scale.gpus_per_worker,
        seconds=work / places,
        gpu_hours=work * scale.workers * scale.gpus_per_worker / 3600,
        refused=[{"point": describe(p), "faults": errors} for p, errors in plan.refused],
        notes=list(dict.fromkeys(notes)),
    )


def _students(plan: SweepPlan) -> dict[str, int]:
    """Return the number of student trainings in each phase."""
    sweep = plan.space.sweep
    found = {"search": plan.trials * len(sweep.seeds.search)}
    found["more seeds"] = min(sweep.seeds.best, plan.trials) * len(sweep.more_seeds)
    found["winner and finetune"] = 2 * len(sweep.final.seeds) if sweep.final else 0
    return found


def _teaching(plan: SweepPlan, have: set[tuple[str, str]]) -> list[tuple[Plan, Stage]]:
    """Return a plan and a stage for each teacher to train, and for each pass over the data that
    computes states, by trials in their order."""
    there, found = set(have), list[tuple[Plan, Stage]]()
    for each in plan.plans:
        stages = {(s.kind, s.key): s for s in each.stages if s.kind in ("teacher", "states")}
        missing = [stage for place, stage in stages.items() if place not in there]
        found += [(each, group[0]) for group in together(missing)]
        there |= stages.keys()
    return found


def render(found: SweepDryRun) -> Group:
    """Render a table of what is to be trained, with the notes below it."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("what")
    table.add_column("number", justify="right")
    table.add_column("in the store", justify="right")
    suggested = found.stored_students is None
    table.add_row("trials" + (", at most" if suggested else ""), f"{found.trials:,}", "")
    table.add_row("distinct teachers", f"{found.teachers:,}", f"{found.stored_teachers:,}")
    for phase, number in found.students.items():
        have = found.stored_students if phase == "search" else None
        table.add_row(f"students: {phase}", f"{number:,}", "" if have is None else f"{have:,}")
    each = counted(found.workers, "worker")
    each += f" with {found.gpus:g} GPU each" if found.gpus else ""
    below = [
        f"{found.slots} trials at a time on this machine, each {each}",
        f"about {clock(found.seconds)}, from steps measured here"
        + (f"; {found.gpu_hours:.1f} GPU-hours" if found.gpu_hours else "")
        + " (less with a scheduler or patience)",
        f"sweep: {found.name}, {found.state}, in {found.folder}",
    ]
    below += [f"left out: {r['point']}: {'; '.join(r['faults'])}" for r in found.refused]
    below += [f"note: {note}" for note in found.notes]
    below.append("nothing was made yet; run it without --dry-run to start")
    return Group(table, Text("\n".join(below)))
