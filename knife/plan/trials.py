"""The trials that find each method's own settings: students of each setting, compared on dev."""

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

from knife.config.overrides import describe, merge, nested
from knife.config.run import RunConfig, Variant
from knife.config.search import Searches, Setting, settings
from knife.plan.plan import Member, Plan, plan_run
from knife.plan.sources import SourceReader
from knife.plan.stage import Stage, inputs

# The first seed of trials, far from those that people give.
_FIRST_SEED = 1000


@dataclass(frozen=True)
class Tried:
    """A setting of a method: its values by dotted key, and its trials, one for each seed."""

    values: Setting
    trials: list[Member]


@dataclass(frozen=True)
class TrialPlan:
    """The trials of a run.

    Attributes:
        plan: what makes them: teachers, states and students, and no evaluations on test.
        tried: the settings of each method that has several, by its name in the run.
    """

    plan: Plan
    tried: dict[str, list[Tried]]


def plan_trials(config: RunConfig, reader: SourceReader) -> TrialPlan | None:
    """Plan the trials of all methods; None if no method has several settings.

    Every method with several gets as many trials as the one with most settings, or some more: one
    with fewer settings repeats each with more seeds.

    Raises:
        UserError: as `plan_run` does, for any of the settings.
    """
    variants = config.variants()
    grids = {variant.name: settings(_searched(config, variant)) for variant in variants}
    most = max(map(len, grids.values()))
    if most == 1:
        return None
    seeds = _seeds(math.ceil(most / min(len(g) for g in grids.values() if len(g) > 1)), config)
    # All in one plan, since methods decide together which examples fit.
    tries = [(variant, values) for variant in variants for values in grids[variant.name]]
    changed = [with_values(variant, values) for variant, values in tries]
    plan = plan_run(
        config.model_copy(update={"methods": changed, "ablate": False, "seeds": seeds}), reader
    )
    tried: dict[str, list[Tried]] = {}
    for number, (variant, values) in enumerate(tries):
        number_of = len(grids[variant.name])
        if number_of > 1:
            members = plan.members[number * len(seeds) :][: math.ceil(most / number_of)]
            trials = [_labelled(member, values) for member in members]
            tried.setdefault(variant.name, []).append(Tried(values, trials))
    each = [trial.student for grid in tried.values() for one in grid for trial in one.trials]
    stages: list[Stage] = list({student.key: student for student in each}.values())
    # Each stage comes after those that it reads.
    for stage in reversed(plan.stages):
        if (stage.kind, stage.key) in {read for other in stages for read in inputs(other)}:
            stages.insert(0, stage)
    return TrialPlan(replace(plan, stages=stages), tried)


def with_values(variant: Variant, values: Setting) -> Variant:
    """Return a variant with values of its own, by dotted key."""
    changes: dict[str, Any] = {}
    for key, value in values.items():
        changes = merge(changes, nested(key, value))
    parts = {part: merge(getattr(variant, part), each) for part, each in changes.items()}
    return variant.model_copy(update=parts)


def _searched(config: RunConfig, variant: Variant) -> Searches:
    """Return what a variant searches of the settings that its method reads."""
    if variant.method == "prompt":
        return {}
    found = config.of(variant).search
    aligned = variant.method == "knife"
    return {key: values for key, values in found.items() if aligned or key.startswith("student.")}


def _seeds(number: int, config: RunConfig) -> list[int]:
    """Return seeds that are none of the run's own."""
    others = (seed for seed in itertools.count(_FIRST_SEED) if seed not in config.seeds)
    return list(itertools.islice(others, number))


def _labelled(member: Member, values: Setting) -> Member:
    label = f"trial of {member.method} ({describe(values)}) seed {member.seed}"
    return replace(member, student=replace(member.student, label=label))
