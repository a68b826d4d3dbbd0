"""The search space: points, the run configs that they represent, and their form in optuna."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from knife.config.overrides import merge, plain, read_overrides
from knife.config.run import RunConfig, parse
from knife.core.errors import UserError, raise_errors
from knife.store.store import store_address
from knife.tune.search.settings import Domain, Sweep

# Value by dotted key of the run config.
Point = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """Points of a sweep, and the run configs that they represent.

    Attributes:
        sweep: the sweep.
        base: the values of its base run config.
    """

    sweep: Sweep
    base: dict[str, Any]

    def config(self, point: Point, seeds: list[int] | None = None) -> RunConfig:
        """Return the run config of a point: one method, by default with the seeds of the search.

        Raises:
            UserError: the run config refuses the point.
        """
        # `set` comes after the point, so that a key set inside a searched mapping stays set.
        values = merge(merge(self.base, read_overrides(point)), read_overrides(self.sweep.set))
        methods = values.get("methods")
        values |= {
            "name": self.sweep.name,
            "seeds": self.sweep.seeds.search if seeds is None else seeds,
            "store": store_address(values.get("store", "knife-store")),
            "methods": methods if isinstance(methods, list) else [methods],
            # A trial trains one method, whatever the base run would add.
            "ablate": False,
        }
        # A trial has no other method; only the sweep's winner is compared with finetune.
        if isinstance(values.get("compare", {}), dict):
            values = merge(values, {"compare": {"baseline": None}})
        config = parse(values)
        raise_errors(_left_open(config))
        return config

    def points(self) -> list[Point]:
        """Return the points of a grid or random search, starting with those to be tried first."""
        if self.sweep.search == "grid":
            combinations = itertools.product(*(d.values for d in self.sweep.space.values()))
            drawn = [dict(zip(self.sweep.space, c, strict=True)) for c in combinations]
        else:
            drawn = list(itertools.islice(self._draw(), self.sweep.budget.trials))
        points = self.sweep.first + [p for p in drawn if p not in self.sweep.first]
        return points[: self.sweep.budget.trials]

    def distributions(self) -> dict[str, Any]:
        """Return the space as optuna distributions."""
        return {key: _distribution(domain) for key, domain in self.sweep.space.items()}

    def encode(self, point: Point) -> Point:
        """Convert a point to optuna's form: lists and mappings as JSON."""
        return {key: plain(value) for key, value in point.items()}

    def decode(self, params: Point) -> Point:
        """Convert optuna's params to a point."""
        return {
            key: next((v for v in domain.values if plain(v) == params[key]), params[key])
            for key, domain in self.sweep.space.items()
        }

    def differing(self, points: Iterable[Point]) -> list[str]:
        """Return the keys in which points differ."""
        encoded = [self.encode(point) for point in points]
        return [key for key in self.sweep.space if len({repr(point[key]) for point in encoded}) > 1]

    def _draw(self) -> Iterator[Point]:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(self.sweep.seed))
        while True:
            yield self.decode(study.ask(self.distributions()).params)

    def errors(self) -> list[str]:
        """Return why values are refused, each tried on a point whose other values are good."""
        good: Point = {}
        errors = []
        for key, domain in self.sweep.space.items():
            found = [self._refused(good | {key: value}) for value in domain.probes]
            fine = [v for v, refused in zip(domain.probes, found, strict=True) if not refused]
            good |= {key: fine[0]} if fine else {}
            # An error that every value has is not due to the value.
            common = set.intersection(*map(set, found)) if len(found) > 1 else set()
            errors += sorted(common)
            errors += [
                f"space.{key}: the value {value!r} is refused: {message}"
                for value, refused in zip(domain.probes, found, strict=True)
                for message in refused
                if message not in common
            ]
        errors = list(dict.fromkeys(errors))
        if errors:
            return errors
        try:
            methods = self.config(good).methods
        except UserError as error:
            return error.errors
        if len(methods) != 1:
            names = ", ".join(v if isinstance(v, str) else v.name for v in methods)
            return [
                f"methods: a trial trains one method, but the base has {names}: set one with "
                "set: {methods: [knife]}, or search several in the space"
            ]
        return []

    def _refused(self, point: Point) -> list[str]:
        """Return the errors for a point's run config."""
        try:
            self.config(point)
        except UserError as error:
            return error.errors
        return []


def _left_open(config: RunConfig) -> list[str]:
    """Return errors for what a run would decide before it starts, which a trial does not."""
    errors = []
    for variant in config.variants():
        own = config.of(variant)
        errors += [
            f"{key}: the base run config searches it, but a sweep searches by itself: give it one "
            f"value (set: {{{key}: VALUE}}), or values in space"
            for key in own.search
        ]
        if own.teacher.gate and own.teacher.gate.below == "train":
            errors.append(
                "teacher.gate.below: must be warn in a sweep, which trains no teacher anew, but "
                "got 'train' (set: {teacher.gate.below: warn})"
            )
    return list(dict.fromkeys(errors))


def _distribution(domain: Domain) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if domain.values:
        return CategoricalDistribution([plain(value) for value in domain.values])
    low, high = domain.bounds
    if domain.int:
        return IntDistribution(int(low), int(high))
    return FloatDistribution(low, high, log=domain.loguniform is not None)
