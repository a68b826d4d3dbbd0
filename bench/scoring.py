"""Speed of scoring that reads the task input once, relative to reading it for each choice.

python bench/scoring.py
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from workload import llama_folder, model_folder, random_tokens, time_in_turn

import torch  # isort: skip  (after the threads are set)

from knife.data.batches import Rows, collate
from knife.data.tokens import Tokens
from knife.models.load import load_backbone

CHOICES, TOKENS, BATCH = 4, 64, 8


def alone(tokens: list[Tokens]) -> list[Tokens]:
    """Make each choice a separate example: what scoring without sharing encodes."""
    return [
        Tokens(t.input_ids, t.rationale_ids, [ids], [(0, 1)], 0)
        for t in tokens
        for ids in t.choice_ids
    ]


def score(backbone: Any, tokens: list[Tokens]) -> torch.Tensor:
    """Scores of all choices, flat."""
    batch = collate(tokens, Rows(list(range(len(tokens))), [1.0] * len(tokens)), 0, False)
    with torch.no_grad():
        scores: torch.Tensor = backbone(batch).scores_BC.flatten()
    return scores


def main() -> None:
    tokens = random_tokens(BATCH, inputs=TOKENS, rationale=1, choices=CHOICES, choice=4)
    models = {"T5 tiny": partial(model_folder, "tiny")}
    for size in ("20M", "60M"):
        models[f"T5 {size}"] = partial(model_folder, size)
        models[f"Llama {size}"] = partial(llama_folder, size)
    for model, make in models.items():
        with tempfile.TemporaryDirectory() as name:
            backbone = load_backbone(make(Path(name))).eval()
            difference = (score(backbone, tokens) - score(backbone, alone(tokens))).abs().max()
            ways = {
                "shared": partial(score, backbone, tokens),
                "one encoding a choice": partial(score, backbone, alone(tokens)),
            }
            medians = time_in_turn(ways, 40 if model == "T5 tiny" else 8)
            ratio = medians["one encoding a choice"] / medians["shared"]
            print(
                f"{model:9} {CHOICES} choices, {TOKENS} tokens: shared encoding {ratio:.2f} x as "
                f"fast ({1000 * medians['shared']:.1f} ms); scores differ by {difference:.1e}"
            )


if __name__ == "__main__":
    main()
