"""The stages that compute the frozen teacher's hidden states of every training example."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from knife.core.errors import NotFiniteError
from knife.data.batches import collate, evaluation_rows
from knife.data.token_table import picked, sequence_lengths
from knife.data.tokens import Tokens
from knife.method.states import (
    SHARD_BYTES,
    Moments,
    Summary,
    example_states,
    not_finite,
    shard_moments,
    write_shard,
)
from knife.method.states_parts import StatesPart
from knife.plan.stage import StatesStage
from knife.train.context import Context, barrier, gather
from knife.train.finite import in_stage, named
from knife.train.journal import Journal
from knife.train.shares import write_shares
from knife.train.stage_context import Split, StageContext, load_published

BATCH_SIZE = 64
# At least this many, so that several workers have work to do and losing one costs little.
MIN_SHARDS = 8


def compute_states(stages: Sequence[StatesStage], places: Sequence[StageContext]) -> None:
    """Write parts of one teacher's states in shards, in one pass over the data.

    Each stage has a context of its own, and each rank writes its own shards. Shards of an
    interrupted try are reused, whatever other parts that try computed. If an online teacher is to
    provide the states, only their variance is stored.

    Raises:
        NotFiniteError: a state is NaN or infinite; raised on all workers.
    """
    stage_context = places[0]
    folder = stage_context.model("teacher", stages[0].teacher)
    split = stage_context.split(stages[0], folder, "train")
    backbone = load_published(folder).to(stage_context.context.device).eval()
    tables, counts = stage_context.several(stages[0])
    shards = _shards(split.tokens, backbone.width)
    parts = [_Part(*each, len(shards)) for each in zip(stages, places, strict=True)]
    lacking = _lacking(parts, len(shards))
    numbers = [number for number, without in enumerate(lacking) if without]
    for number in numbers[stage_context.context.rank :: stage_context.context.world_size]:
        wanted = [part.stage.part for part in lacking[number]]
        found = _mean_states(backbone, split, tables, counts, shards[number], wanted, places[0])
        for part in lacking[number]:
            states = [example[part.stage.part] for example in found]
            part.write(number, shards[number], states, sharing=len(wanted))
    widths = {"output": backbone.output_width, "scores": 1}
    for part in parts:
        part.finish(split.ids, widths.get(str(part.stage.part), backbone.width))
    barrier()
    for part in parts:
        part.drop_unread()


class _Part:
    """One part of the states in this host's work folder.

    Attributes:
        stage: the stage that makes it.
        moments: those of the shards that are there, by number.
    """

    def __init__(self, stage: StatesStage, stage_context: StageContext, shards: int) -> None:
        self.stage = stage
        self._work, self._context = stage_context.work, stage_context.context
        self._paths = [self._work / f"shard-{n:05d}.safetensors" for n in range(shards)]
        known = [number for number, path in enumerate(self._paths) if path.is_file()]
        self.moments = {number: shard_moments(self._paths[number]) for number in known}
        self._journal = Journal(self._work) if self._context.rank == 0 else None
        self._examples = 0
        self._bad: list[int] = []

    def write(
        self, number: int, rows: Sequence[int], states: Sequence[Tensor], *, sharing: int
    ) -> None:
        """Write a shard with the states of some examples, unless one of them is not finite.

        `sharing` is the number of parts that were computed at once.
        """
        precision, stored = self.stage.precision, self.stage.stored
        if wrong := not_finite(states, precision):
            self._bad += [rows[index] for index in wrong]
            return
        self.moments[number] = write_shard(
            self._paths[number], rows, states, precision, stored=stored
        )
        self._examples += len(rows)
        if self._journal:
            metrics: dict[str, float] = {"examples": self._examples, "sharing": sharing}
            self._journal.add(number + 1, None, metrics)

    def finish(self, ids: Sequence[str], width: int) -> None:
        """Write the summary; all workers must call it."""
        if self._journal:
            self._journal.close()
        write_shares(self._work, self._context, self._examples)
        if rows := {row for some in gather(self._bad) for row in some}:
            bad = [ids[row] for row in sorted(rows)]
            with in_stage(self.stage.label):
                raise NotFiniteError(
                    f"the teacher's states are not finite for {len(bad)} of "
                    f"{len(ids)} examples: {named(bad)}; lower teacher.learning_rate"
                )
        everybody = {number: of for some in gather(self.moments) for number, of in some.items()}
        if self._context.rank == 0:
            # In the same order at any number of workers.
            moments = Moments.merged(everybody[number] for number in range(len(self._paths)))
            variance = moments.variance()
            Summary(width, self.stage.precision, variance, self.stage.stored).write(self._work)

    def drop_unread(self) -> None:
        """Remove the shards of states that are not stored, which have only their moments."""
        for path in self._paths if not self.stage.stored else []:
            path.unlink(missing_ok=True)


def _lacking(parts: Sequence[_Part], shards: int) -> list[list[_Part]]:
    """Return the parts that lack each shard; all workers must call it."""
    # Gathered from all ranks, so that no shard is computed twice or left out: hosts may have
    # separate folders.
    there = [{number for some in gather(list(p.moments)) for number in some} for p in parts]
    return [
        [part for part, done in zip(parts, there, strict=True) if number not in done]
        for number in range(shards)
    ]


def _shards(tokens: Sequence[Tokens], width: int) -> list[list[int]]:
    """Return the rows of each shard, in order: the same for every part of a teacher's states, at
    any number of workers."""
    sizes = [length * width * 4 for length in sequence_lengths(tokens, rationale=False)]
    limit = min(SHARD_BYTES, sum(sizes) / MIN_SHARDS)
    shards: list[list[int]] = [[]]
    filled = 0.0
    for row, size in enumerate(sizes):
        if filled >= limit:
            shards.append([])
            filled = 0
        shards[-1].append(row)
        filled += size
    return shards


def _mean_states(
    backbone: Any,
    split: Split,
    tables: Sequence[Sequence[Tokens]],
    counts: "np.ndarray[Any, Any]",
    rows: list[int],
    parts: Sequence[StatesPart],
    place: StageContext,
) -> list[dict[StatesPart, Tensor]]:
    """Return parts of the states of some examples: means over the rationales of each.

    A student that is drawn to the states of each in turn, by a squared distance, is drawn to their
    mean: the distances to all differ from that to the mean by a constant.
    """
    of: dict[int, list[dict[StatesPart, Tensor]]] = {row: [] for row in rows}
    for number, tokens in enumerate(tables):
        some = [row for row in rows if counts[row] > number]
        if some:
            own = replace(split, tokens=tokens)
            found = _states(backbone, own, some, parts, place.context)
            for row, states in zip(some, found, strict=True):
                of[row].append(states)
    return [
        each[0]
        if len(each) == 1
        else {part: torch.stack([states[part] for states in each]).mean(0) for part in parts}
        for each in of.values()
    ]


def _states(
    backbone: Any,
    split: Split,
    rows: list[int],
    parts: Sequence[StatesPart],
    context: Context,
) -> list[dict[StatesPart, Tensor]]:
    """Return parts of the states of some examples, in the order of `rows`."""
    tokens = picked(split.tokens, rows)
    lengths = sequence_lengths(tokens, rationale=True)
    layers = [part for part in parts if isinstance(part, int)]
    found: dict[int, dict[StatesPart, Tensor]] = {}
    with torch.no_grad():
        for batch_rows in evaluation_rows(lengths, min(BATCH_SIZE, len(rows))):
            batch = collate(tokens, batch_rows, split.pad_id, True).to(context.device)
            states = example_states(backbone(batch, layers), parts, batch)
            found |= dict(zip(batch_rows.rows, states, strict=True))
            context.heartbeat()
    return [found[number] for number in range(len(rows))]
