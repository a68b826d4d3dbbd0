"""The stage that computes the frozen teacher's states of every training example."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from knife.data.batches import collate, evaluation_rows
from knife.data.tokens import Tokens
from knife.method.states import SHARD_BYTES, Moments, Summary, example_states, write_shard
from knife.train.checkpoint import write_json
from knife.train.context import Context, gather
from knife.train.journal import Journal
from knife.train.place import Place, Split, load_published
from knife.train.stage import StatesStage

BATCH_SIZE = 64
# So many at least, so that several workers have something to do and a lost one costs little.
MIN_SHARDS = 8


def compute_states(stage: StatesStage, place: Place) -> None:
    """Write the states in shards, each rank its own; finished shards of a cut-off try are kept.

    Where an online teacher is to give the states, their variance alone is kept.
    """
    context, work = place.context, place.work
    folder = place.model("teacher", stage.teacher)
    split = place.split(stage, folder, "train")
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
    journal = Journal(work) if context.rank == 0 else None
    moments = Moments(stage.layers)
    for number in range(context.rank, len(shards), context.world_size):
        path = work / f"shard-{number:05d}.safetensors"
        kept = path.with_suffix(".json")
        own = Moments(stage.layers)
        if kept.is_file():
            values = json.loads(kept.read_text())
            own.tokens = values["tokens"]
            own.sums_L3 = torch.tensor(values["sums"], dtype=torch.float64)
        else:
            parts = list(_parts(backbone, split, shards[number], stage.layers, context))
            for part in parts:
                own.add(part["input"])
            if stage.stored:
                write_shard(path, shards[number], parts, summary)
            write_json(kept, {"tokens": own.tokens, "sums": own.sums_L3.tolist()})
        moments.merge(own)
        if journal:
            journal.add(number + 1, None, {"shards": number + 1})
    everybody = gather((moments.tokens, moments.sums_L3))
    if journal:
        journal.close()
        moments.tokens = sum(tokens for tokens, _ in everybody)
        moments.sums_L3 = torch.stack([sums for _, sums in everybody]).sum(0)
        replace(summary, variance=moments.variance(), tokens=moments.tokens).write(work)
        for kept in work.glob("shard-*.json"):
            kept.unlink()


def _shards(tokens: Sequence[Tokens], summary: Summary) -> list[list[int]]:
    """The rows of each shard, in order, the same at any number of workers."""
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
    """The states of some examples, in the order of `rows`."""
    tokens = [split.tokens[row] for row in rows]
    lengths = [len(t.input_ids) + len(t.rationale_ids) for t in tokens]
    parts: dict[int, dict[str, Tensor]] = {}
    with torch.no_grad():
        for batch_rows in evaluation_rows(lengths, min(BATCH_SIZE, len(rows))):
            batch = collate(tokens, batch_rows, split.pad_id, True).to(context.device)
            cut = example_states(backbone(batch, layers), layers, batch)
            parts |= dict(zip(batch_rows.rows, cut, strict=True))
            context.beat()
    return (parts[number] for number in range(len(rows)))
