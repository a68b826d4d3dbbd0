"""The phases of a sweep, whose rows are kept once each has ended."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from knife.config.run import RunConfig
from knife.core.atomic import write_json
from knife.plan.plan import plan_run
from knife.store.store import Store
from knife.train.stages import drop_unfinished
from knife.tune.search.begun import begun_trials, numbered
from knife.tune.search.final import baselines, recipe
from knife.tune.search.phase import Listener, Phase, Workshop, has_time_left
from knife.tune.search.schedulers import judge
from knife.tune.search.searcher import Suggestions
from knife.tune.search.settings import Budget
from knife.tune.search.study import ranked
from knife.tune.search.sweep_plan import SweepPlan
from knife.tune.search.trial import Task
from knife.tune.search.trials import TrialRow, read_rows


@dataclass(frozen=True)
class Phases:
    """Search, more seeds for the best trials, and the final trainings.

    Attributes:
        plan: the sweep.
        folder: the sweep's folder in the store.
        workshop: makes the trials' stages.
        listener: makes the listener of a phase, from its name and the params of its trials.
    """

    plan: SweepPlan
    folder: Path
    workshop: Workshop
    listener: Callable[[str, list[dict[str, Any]]], Listener]

    def search(self) -> list[TrialRow]:
        """Run every trial of the search."""
        plan, space = self.plan, self.plan.space
        phase = self._phase("search", test=space.sweep.test, budget=space.sweep.budget)
        rows = self._rows(phase, search_params(plan))
        rows.sort(key=lambda row: row.number)
        # What a kill or the end of the budget has left.
        for row in rows:
            if row.state in ("pruned", "stopped"):
                config = space.config(row.point)
                planned = plan_run(config, self.workshop.reader, elsewhere=True)
                for member in planned.members:
                    drop_unfinished(self.workshop.store, member.student)
        return rows

    def more_seeds(self, rows: Sequence[TrialRow]) -> list[TrialRow]:
        """Train more seeds of the best trials; return the rows, scored over all of their seeds.

        A trial fails if one of its seeds fails: a mean over the others would hide it.
        """
        sweep = self.plan.space.sweep
        seeds = sweep.more_seeds
        best = ranked(self.plan.space, rows)[: sweep.seeds.best] if seeds else []
        params: list[dict[str, Any]] = [
            {"point": row.point, "seeds": [seed], "trial": row.number}
            for row in best
            for seed in seeds
        ]
        more = self._known("seeds", params, test=sweep.test)
        found = {row.number: row for row in rows}
        for param, part in zip(params, more, strict=True):
            row = found[param["trial"]]
            if part.state == "failed":
                why = f"seed {param['seeds'][0]}: {part.error or 'unknown error'}"
                found[row.number] = replace(row, state="failed", score=None, error=why)
            if found[row.number].state == "failed":
                continue
            scores, tests = row.scores | part.scores, row.tests | part.tests
            found[row.number] = replace(
                row,
                score=fmean(scores.values()),
                scores=scores,
                tests=tests,
                students=row.students | part.students,
            )
        return list(found.values())

    def final(self, best: TrialRow, rows: Sequence[TrialRow]) -> RunConfig:
        """Train the winner and finetune with the final seeds; return the config comparing them."""
        space = self.plan.space
        choices = baselines(space, best, rows)
        if len(choices) > 1:
            params = [{"config": choice.model_dump(mode="json")} for choice in choices]
            tried = self._known("baseline", params)
            keys = [str(number) for number in range(len(tried))]
            scored = [replace(r, point={"choice": k}) for r, k in zip(tried, keys, strict=True)]
            order = ranked(space, scored)
            choices = [choices[int(order[0].point["choice"])]] if order else choices
        config = recipe(space, best, choices[0])
        params = []
        for variant in config.variants():
            for seed in config.seeds:
                own = config.of(variant).model_dump(mode="json") | {"seeds": [seed]}
                params.append({"config": own})
        self._known("final", params, test=True, ceiling=True)
        return config

    def _known(
        self, name: str, params: list[dict[str, Any]], *, test: bool = False, ceiling: bool = False
    ) -> list[TrialRow]:
        """Return the rows of a phase whose trials are known."""
        if not params:
            return []
        phase = self._phase(name, test=test, ceiling=ceiling)
        # After them come the trials of an earlier best.
        return self._rows(phase, params)[: len(params)]

    def _phase(
        self, name: str, *, test: bool, ceiling: bool = False, budget: Budget | None = None
    ) -> Phase:
        space = self.plan.space
        return Phase(
            name=name,
            folder=self.folder,
            task=Task(space, test, ceiling),
            scale=self.plan.config.scale,
            budget=budget or Budget(),
        )

    def _rows(self, phase: Phase, params: list[dict[str, Any]] | None) -> list[TrialRow]:
        kept, plan = self.folder / f"{phase.name}.json", self.plan
        if not kept.is_file():
            rows = phase.run(
                params,
                lambda begun: Suggestions(plan.space, plan.trials, begun),
                lambda: (
                    judge(plan.space.sweep, plan.epochs, phase.path)
                    if phase.name == "search"
                    else None
                ),
                self.listener(phase.name, params or []),
                self.workshop,
            )
            write_json(kept, [row.to_dict() for row in rows])
            self.workshop.store.keep(self.folder)
        return read_rows(kept)


def search_params(plan: SweepPlan) -> list[dict[str, Any]] | None:
    """Return the params of a search's trials; None if optuna suggests them."""
    return None if plan.points is None else [{"point": point} for point in plan.points]


def trials_left(plan: SweepPlan, folder: Path) -> int:
    """Return how many trials a sweep's search still has to run under its present budget."""
    sweep, search = plan.space.sweep, folder / "search"
    if not has_time_left(sweep.budget, plan.config.scale, search):
        return 0
    begun, params = begun_trials(search, plan.space), search_params(plan)
    ended = {each.row.number for each in begun if each.ended}
    if params is None:
        return max(plan.trials - len(ended), 0)
    return sum(each["number"] not in ended for each in numbered(params, begun))


def reopen(folder: Path, store: Store) -> None:
    """Drop the results that were concluded from fewer trials; trained models stay."""
    names = [f"{name}.json" for name in ("result", "search", "seeds", "baseline", "final")]
    store.drop_results(folder, names)
