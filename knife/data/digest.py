"""The digest of examples: what a fingerprint holds in their place."""

import hashlib
from collections.abc import Iterable
from typing import Literal

from knife.core import strict_json
from knife.data.example import Example, Splits


def digest(examples: Iterable[Example], rationales: bool) -> str:
    """The first 16 hex digits of SHA-256 over the examples' content, in their order.

    Without `rationales` it is that of the task inputs and answers alone, so that what never sees
    a rationale keeps its fingerprint when only rationales change.
    """
    hashed = hashlib.sha256()
    for example in examples:
        content = [example.id, example.question, example.choices, example.answer]
        if rationales:
            content.append(example.rationale)
        hashed.update(strict_json.dumps(content).encode() + b"\n")
    return hashed.hexdigest()[:16]


def split_digest(splits: Splits, name: Literal["train", "dev", "test"], *, rationales: bool) -> str:
    """The digest of one split, computed once: every stage of a plan asks for it."""
    known = (name, rationales)
    if known not in splits.digests:
        splits.digests[known] = digest(getattr(splits, name), rationales)
    return splits.digests[known]
