"""Results of finished trainings and evaluations, read without torch."""

import json
from math import fsum
from typing import Any

from knife.store.store import Store

TRAINED = "trained.json"
PREDICTIONS = "predictions.jsonl"


def read_predictions(store: Store, key: str) -> list[dict[str, Any]]:
    """Read the rows that the evaluation with a key wrote, one per example."""
    text = store.read("evaluate", key, PREDICTIONS)
    return [json.loads(line) for line in text.splitlines()]


def read_trained(store: Store, kind: str, key: str) -> dict[str, Any]:
    """Read the result of a teacher's or a student's training: steps, metrics on dev, seconds."""
    found: dict[str, Any] = json.loads(store.read(kind, key, TRAINED))
    return found


def accuracy(store: Store, key: str) -> float:
    """Return the share of test examples that an evaluation got right; a tie counts its share."""
    rows = read_predictions(store, key)
    return fsum(row["right"] for row in rows) / len(rows)
