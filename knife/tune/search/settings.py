"""The sweep config: what is searched, how, with which seeds and within which budget."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from knife.config.run import NAME_LETTERS
from knife.config.section import ConfigSection

METRICS: dict[str, Literal["max", "min"]] = {"dev_accuracy": "max", "dev_loss": "min"}
Bounds = tuple[float, float]
# Defined here because `int` is a field in the class below.
WholeBounds = tuple[int, int]


def _number(value: Any) -> Any:
    """Convert a number that YAML read as a string: 1e-3 is one, since it has no point."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Value = Annotated[Any, AfterValidator(_number)]


class Domain(ConfigSection):
    """The values of one config key, given as exactly one of the five."""

    choice: Annotated[list[Value], Field(min_length=1)] | None = None
    grid: Annotated[list[Value], Field(min_length=1)] | None = None
    uniform: Bounds | None = None
    loguniform: Bounds | None = None
    int: WholeBounds | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "Domain":
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError(
                "must have exactly one of choice, grid, uniform, loguniform and int, "
                f"but got {', '.join(given) or 'none'}"
            )
        if not self.values:
            low, high = self.bounds
            if not low < high or not math.isfinite(high - low):
                raise ValueError(f"must be [low, high] with low < high, but got {[low, high]}")
            if self.loguniform and low <= 0:
                raise ValueError(f"loguniform must have low > 0, but got {low}")
        return self

    @property
    def values(self) -> list[Any]:
        """All values of a discrete domain; empty for a range."""
        return self.choice or self.grid or []

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value of a range."""
        found = self.uniform or self.loguniform or self.int
        assert found
        return found

    def holds(self, value: Any) -> bool:
        """Whether the domain has the value."""
        if self.values:
            return value in self.values
        low, high = self.bounds
        whole = isinstance(value, int) and not isinstance(value, bool)
        return (whole if self.int else isinstance(value, int | float)) and low <= value <= high

    @property
    def probes(self) -> list[Any]:
        """Values to test on the run config: all of a discrete domain, the ends of a range."""
        return self.values or list(self.bounds)


class Scheduler(ConfigSection):
    """Which trials end early, judged by their scores at equal epochs.

    `asha` keeps the best 1/`reduction` of those that reach `grace` epochs, and again at every
    `reduction` times as many; `median` ends trials that are below the median of the others.
    """

    name: Literal["none", "asha", "median"] = "none"
    grace: int = Field(1, ge=1)
    reduction: int = Field(3, ge=2)


class Budget(ConfigSection):
    """When a search ends, whichever limit comes first; `trials: null` is the whole grid."""

    trials: int | None = Field(None, ge=1)
    hours: float | None = Field(None, gt=0)
    gpu_hours: float | None = Field(None, gt=0)


class Seeds(ConfigSection):
    """Student seeds: `search` of every trial, and `more` for the `best` trials afterwards."""

    search: list[int] = Field([0], min_length=1)
    best: int = Field(3, ge=1)
    more: list[int] = Field([])


class Final(ConfigSection):
    """The winner against `finetune` on test, with seeds that the search did not use."""

    seeds: list[int] = Field([100, 101, 102], min_length=1)


class Sweep(ConfigSection):
    """One sweep.

    Attributes:
        base: a recipe's name, or a run config file next to the sweep's file or in the current
            folder.
        set: changes to the base for all trials, by dotted key.
        space: domain by dotted key of the run config. Each value of `methods` is one method.
        first: points that are tried before the others.
        test: whether every trial's students are also evaluated on test (for learning curves); the
            search never chooses by that.
        concurrent: the most trials at a time; null is as many as fit.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=NAME_LETTERS)
    base: str
    set: dict[str, Any] = Field({})
    space: dict[str, Domain] = Field(min_length=1)
    metric: str = "dev_accuracy"
    search: Literal["random", "grid", "tpe"] = "random"
    first: list[dict[str, Value]] = Field([])
    seed: int = 0
    scheduler: Scheduler = Scheduler()
    budget: Budget = Budget()
    seeds: Seeds = Seeds()
    final: Final | None = Final()
    test: bool = False
    concurrent: int | None = Field(None, ge=1)

    @field_validator("metric")
    @classmethod
    def _reported(cls, value: str) -> str:
        if value not in METRICS:
            raise ValueError(
                f"must be a metric that trials report ({', '.join(METRICS)}; never one of the test "
                f"split), but got {value!r}"
            )
        return value

    @property
    def more_seeds(self) -> list[int]:
        """The seeds that only the best trials are trained with."""
        return [seed for seed in self.seeds.more if seed not in self.seeds.search]

    @property
    def direction(self) -> Literal["max", "min"]:
        """`max` if a higher metric is better, else `min`."""
        return METRICS[self.metric]
