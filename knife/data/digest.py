"""The digest of examples, which represents them in a fingerprint."""

import hashlib
from collections.abc import Iterable

from knife.core import strict_json
from knife.data.example import Example, Splits


def digests(examples: Iterable[Example]) -> tuple[str, str]:
    """Return the first 16 hex digits of SHA-256 over the examples' content, in order: without and
    with rationales.

    Without, it covers task inputs and answers only, so that stages that never see a rationale keep
    their fingerprint when only rationales change.
    """
    without, whole = hashlib.sha256(), hashlib.sha256()
    for example in examples:
        content = [example.id, example.question, example.choices, example.answer]
        start = strict_json.dumps(content)[:-1]
        without.update(f"{start}]\n".encode())
        rationales = [example.rationale, *example.more_rationales]
        said = ", ".join(map(strict_json.dumps, rationales))
        whole.update(f"{start}, {said}]\n".encode())
    return without.hexdigest()[:16], whole.hexdigest()[:16]


def split_digest(splits: Splits, name: str, *, rationales: bool) -> str:
    """Return the digest of one split, cached because every stage of a plan needs it."""
    if (name, rationales) not in splits.digests:
        pair = digests(splits.parts[name])
        splits.digests[name, False], splits.digests[name, True] = pair
    return splits.digests[name, rationales]
