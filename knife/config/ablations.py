"""The ablations of `knife`: the changes that each makes to a run's config."""

from typing import Any

# Weights of an ablation where `knife` itself has 0: the default, and that of the task loss.
_INPUT_WEIGHT, _OUTPUT_WEIGHT = 30.0, 1.0


def ablations(input_weight: Any, output_weight: Any) -> dict[str, dict[str, Any]]:
    """Return the config changes of each ablation by name. Each varies one thing: what is aligned
    (with the weights of `knife`), the bottleneck, or whether rationales match their questions."""
    input_weight, output_weight = input_weight or _INPUT_WEIGHT, output_weight or _OUTPUT_WEIGHT
    return {
        "input-only": {"align": _weights(input_weight, 0)},
        "output-only": {"align": _weights(0, output_weight)},
        "input-and-output": {"align": _weights(input_weight, output_weight)},
        "no-bottleneck": {"teacher": {"bottleneck": False}},
        "shuffled": {"data": {"rationale": "shuffled"}},
    }


def _weights(weight_in: Any, weight_out: Any) -> dict[str, Any]:
    return {"input": {"weight": weight_in}, "output": {"weight": weight_out}}
