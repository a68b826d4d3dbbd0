"""What finished trainings and evaluations leave, to be read without torch."""

import json
from math import fsum
from typing import Any

from knife.plan.stage import EvaluateStage
from knife.store.store import Store

TRAINED = "trained.json"
PREDICTIONS = "predictions.jsonl"


def read_predictions(store: Store, key: str) -> list[dict[str, Any]]:
    """The rows that the evaluation of a key wrote, one an example."""
    text = store.read("evaluate", key, PREDICTIONS)
    return [json.loads(line) for line in text.splitlines()]


def accuracy(store: Store, stage: EvaluateStage) -> float:
    """Share of the test examples that an evaluation got right; a tie counts its share."""
    rows = read_predictions(store, stage.key)
    return fsum(row["right"] for row in rows) / len(rows)
