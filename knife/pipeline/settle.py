"""What is decided before a run, on dev alone: whether its teachers are good enough, and each
method's own settings."""

from dataclasses import asdict, dataclass
from typing import Any

from knife.config.run import RunConfig
from knife.pipeline.gate import Gated, Make, pass_gates
from knife.pipeline.own_settings import Choice, choose_settings
from knife.plan.sources import SourceReader


@dataclass(frozen=True)
class Settled:
    """A run's config after these decisions.

    Attributes:
        config: the config with them; the same one if it left nothing open.
        gates: how teachers did at their gates.
        choices: the settings of each method that were searched.
    """

    config: RunConfig
    gates: list[Gated]
    choices: list[Choice]

    @property
    def sentences(self) -> list[str]:
        """What a reader of the results should know."""
        said = [sentence for gated in self.gates if (sentence := gated.sentence())]
        if self.choices:
            each = "; ".join(choice.words() for choice in self.choices)
            said.append(f"Each method has its own settings, the best of its trials on dev: {each}.")
        return said

    def record(self) -> dict[str, Any]:
        """Return what the run's record keeps of the decisions; nothing if there were none."""
        gates, choices = map(asdict, self.gates), map(asdict, self.choices)
        found = {"gates": list(gates), "choices": list(choices)}
        return {name: each for name, each in found.items() if each}


def settle(config: RunConfig, reader: SourceReader, make: Make) -> Settled:
    """Decide what a run's config leaves open; `make` makes the teachers and trials for it.

    Raises:
        UserError: as `plan_run` does, for any setting, or a gate has nothing to look at.
    """
    gated, gates = pass_gates(config, reader, make)
    chosen, choices = choose_settings(gated, reader, make)
    return Settled(chosen, gates, choices)
