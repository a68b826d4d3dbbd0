"""The parts of a teacher's states: each is computed, stored and read separately."""

from collections.abc import Iterable
from typing import Literal

from knife.config.run import Align

# A layer, from 1: its states at the positions of the task input. `output`: the answer-side states
# of the choices. `scores`: the scores of the choices.
StatesPart = int | Literal["output", "scores"]


def parts_read(align: Align, layers: Iterable[int]) -> list[StatesPart]:
    """Return the parts that students of these settings read from the store.

    `layers` are the teacher's layers that are aligned, from 1. An online teacher computes the
    states itself; of what is stored, `scaled_mse` then reads the variance of the layers.
    """
    stored = align.states == "stored"
    parts: list[StatesPart] = []
    if stored or align.input.distance == "scaled_mse":
        parts += sorted(set(layers))
    if stored and align.output.weight:
        parts.append("output" if align.output.target == "states" else "scores")
    return parts
