"""The ablations of `knife`: what each changes in a run's config."""

from typing import Any

# Weights of an ablation where `knife` itself has none: the default, and that of the task loss.
_INPUT_WEIGHT, _OUTPUT_WEIGHT = 30.0, 1.0


def ablations(input_weight: float, output_weight: float) -> dict[str, dict[str, Any]]:
    """Changes by name, one thing each: what is aligned, given the weights that `knife` has,
    whether the bottleneck stands, whether rationales fit their questions."""
    input_weight, output_weight = input_weight or _INPUT_WEIGHT, output_weight or _OUTPUT_WEIGHT
    return {
        "input-only": {"align": _weights(input_weight, 0)},
        "output-only": {"align": _weights(0, output_weight)},
        "input-and-output": {"align": _weights(input_weight, output_weight)},
        "no-bottleneck": {"teacher": {"bottleneck": False}},
        "shuffled": {"data": {"rationale": "shuffled"}},
    }


def _weights(weight_in: float, weight_out: float) -> dict[str, Any]:
    return {"input": {"weight": weight_in}, "output": {"weight": weight_out}}
