"""The stage that computes the frozen teacher's hidden states of every training example."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from knife.core.atomic import write_json
from knife.core.errors import NotFiniteError
from knife.data.batches import collate, evaluation_rows
from knife.data.tokens import Tokens
from knife.method.states import (
    SHARD_BYTES,
    Moments,
    Summary,
    example_states,
    not_finite,
    write_shard,
)
from knife.plan.stage import StatesStage
from knife.train.context import Context, barrier, gather
from knife.train.finite import named
from knife.train.journal import Journal
from knife.train.shares import write_shares
from knife.train.stage_context import Split, StageContext, load_published

BATCH_SIZE = 64
# At least this many, so that several workers have work to do and losing one costs little.
MIN_SHARDS = 8


def compute_states(stage: StatesStage, stage_context: StageContext) -> None:
    """Write the states in shards, each rank its own; an interrupted try's shards are reused.

    If an online teacher is to provide the states, only their variance is stored.

    Raises:
        NotFiniteError: a state is NaN or infinite; raised on all workers.
    """
    context, work = stage_context.context, stage_context.work
    folder = stage_context.model("teacher", stage.teacher)
    split = stage_context.split(stage, folder, "train")
    backbone = load_published(folder).to(context.device).eval()
    summary = Summary(
        layers=list(stage.layers),
        width=backbone.width,
        output_width=backbone.output_width,
        outputs=stage.outputs,
        precision=stage.precision,
        variance={},
        tokens=0,
        stored=stage.stored,
    )
    shards = _shards(split.tokens, summary)
    kept = [work / f"shard-{number:05d}.json" for number in range(len(shards))]
    known = {n: json.loads(path.read_text()) for n, path in enumerate(kept) if path.is_file()}
    # Gathered from all ranks, so that no shard is computed twice or left out: hosts may have
    # separate folders.
    there = {number for numbers in gather(sorted(known)) for number in numbers}
    missing = [number for number in range(len(shards)) if number not in there]
    own = missing[context.rank :: context.world_size]
    journal = Journal(work) if context.rank == 0 else None
    bad: list[int] = []
    for number in own:
        moments = Moments(stage.layers)
        parts = list(_parts(backbone, split, shards[number], stage.layers, context))
        if found := not_finite(parts, summary.precision):
            bad += [shards[number][index] for index in found]
            continue
        for part in parts:
            moments.add(part["input"])
        if stage.stored:
            write_shard(kept[number].with_suffix(".safetensors"), shards[number], parts, summary)
        known[number] = {"tokens": moments.tokens, "sums": moments.sums_L3.tolist()}
        write_json(kept[number], known[number])
        if journal:
            journal.add(number + 1, None, {"shards": number + 1})
    write_shares(work, context, sum(len(shards[number]) for number in own))
    if rows := {row for part in gather(bad) for row in part}:
        ids = [split.ids[row] for row in sorted(rows)]
        raise NotFiniteError(
            f"the teacher's states are not finite for {len(ids)} of "
            f"{len(split.ids)} examples: {named(ids)}; lower teacher.learning_rate"
        )
    everybody = {number: of for part in gather(known) for number, of in part.items()}
    if journal:
        journal.close()
        moments = _merged([everybody[number] for number in range(len(shards))], stage.layers)
        replace(summary, variance=moments.variance(), tokens=moments.tokens).write(work)
    barrier()
    for path in kept:
        path.unlink(missing_ok=True)


def _merged(shards: Sequence[dict[str, Any]], layers: Sequence[int]) -> Moments:
    """Merge the moments of all shards, in the same order at any number of workers."""
    merged = Moments(layers)
    for values in shards:
        moments = Moments(layers)
        moments.tokens = values["tokens"]
        moments.sums_L3 = torch.tensor(values["sums"], dtype=torch.float64)
        merged.merge(moments)
    return merged


def _shards(tokens: Sequence[Tokens], summary: Summary) -> list[list[int]]:
    """Return the rows of each shard, in order, the same at any number of workers."""
    per_token = len(summary.layers) * summary.width * (2 if summary.precision == "bf16" else 4)
    sizes = [len(example.input_ids) * per_token for example in tokens]
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


def _parts(
    backbone: Any, split: Split, rows: list[int], layers: Sequence[int], context: Context
) -> Iterator[dict[str, Tensor]]:
    """Return the states of some examples, in the order of `rows`."""
    tokens = [split.tokens[row] for row in rows]
    lengths = [len(t.input_ids) + len(t.rationale_ids) for t in tokens]
    parts: dict[int, dict[str, Tensor]] = {}
    with torch.no_grad():
        for batch_rows in evaluation_rows(lengths, min(BATCH_SIZE, len(rows))):
            batch = collate(tokens, batch_rows, split.pad_id, True).to(context.device)
            cut = example_states(backbone(batch, layers), layers, batch)
            parts |= dict(zip(batch_rows.rows, cut, strict=True))
            context.heartbeat()
    return (parts[number] for number in range(len(rows)))
