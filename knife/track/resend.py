"""Sending the messages that earlier processes left in the outboxes of a store."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from knife.core.errors import UserError
from knife.track.address import resolve_kept
from knife.track.connect import AwayError
from knife.track.outbox import Head, Outbox, left
from knife.track.sender import Sender
from knife.track.settings import mlflow_settings


@dataclass
class Resent:
    """The result of sending the outboxes.

    Attributes:
        sent: for each outbox, its head and what was sent of each run (name, counts by kind).
        kept: why something is still unsent, one line each.
        mended: lines about runs that were deleted in MLflow and are there again.
        refused: what MLflow will never accept, one line for each run.
        held: names of outboxes that a living process holds and sends itself.
        faults: what the user has to fix, one line each; those outboxes are kept.
    """

    sent: list[tuple[Head, list[tuple[str, Counter[str]]]]] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def resend(store: Path, keys: Collection[str | None] | None = None) -> Resent:
    """Send everything in a store's outboxes, or in those of the runs and sweeps of `keys`.

    Each is removed when all of it is sent; what is unsent stays, however this ends. A run whose
    process died without recording an end counts as killed at its last message.
    """
    with mlflow_settings():
        return _resend_all(store, keys)


def _resend_all(store: Path, keys: Collection[str | None] | None) -> Resent:
    found = Resent()
    away: dict[str, str] = {}
    for path in left(store):
        if keys is not None and path.stem.rpartition("-")[0] not in keys:
            continue
        try:
            outbox = Outbox.take(path)
        except UserError as error:
            found.faults += error.faults
            continue
        if outbox is None:
            found.held.append(path.name)
            continue
        try:
            _resend(outbox, store, found, away)
        except AwayError as error:
            away[outbox.head.uri] = str(error)
            head = outbox.head
            found.kept.append(f"MLflow at {head.uri} does not answer (run {head.name!r}): {error}")
        except UserError as error:
            found.faults += error.faults
        finally:
            outbox.close()
    found.faults = list(dict.fromkeys(found.faults))
    return found


def _resend(outbox: Outbox, store: Path, found: Resent, away: dict[str, str]) -> None:
    head = outbox.head
    if head.uri in away:
        # Ask once, rather than wait for seconds again for each run.
        raise AwayError(away[head.uri])
    sender = Sender(resolve_kept(head.uri, head.where, store), store, head.experiment)
    sender.reach()
    moment = outbox.path.stat().st_mtime
    sender.replay(outbox)
    for run in sender.runs:
        if run.running:
            run.finish("KILLED", moment)
    sender.flush(last=True)
    counts = [(run.name, run.remote.count) for run in sender.runs if run.remote]
    found.sent.append((head, counts))
    found.mended += sender.mended()
    found.refused += sender.refusals()
    found.kept += [line for line in sender.unsent() if line.startswith("MLflow lacks")]
    sender.close()
