"""The digest of examples, which represents them in a fingerprint."""

import hashlib
from collections.abc import Iterable
from typing import Literal

from knife.core import strict_json
from knife.data.example import Example, Splits


def digest(examples: Iterable[Example], rationales: bool) -> str:
    """Return the first 16 hex digits of SHA-256 over the examples' content, in order.

    Without `rationales` it covers task inputs and answers only, so that stages that never see a
    rationale keep their fingerprint when only rationales change.
    """
    hashed = hashlib.sha256()
    for example in examples:
        content = [example.id, example.question, example.choices, example.answer]
        if rationales:
            content.append(example.rationale)
        hashed.update(strict_json.dumps(content).encode() + b"\n")
    return hashed.hexdigest()[:16]


def split_digest(splits: Splits, name: Literal["train", "dev", "test"], *, rationales: bool) -> str:
    """Return the digest of one split, cached because every stage of a plan needs it."""
    known = (name, rationales)
    if known not in splits.digests:
        splits.digests[known] = digest(getattr(splits, name), rationales)
    return splits.digests[known]
