"""Teacher states: computed once, stored in memory-mapped shards, read in any order.

One row per example: the states at its task-input positions in the chosen layers, its answer-side
states if output alignment needs them, and its choices' scores. A shard is a safetensors file:

    input    (task-input tokens of all its examples, layers, width)
    output   (answer tokens of all its examples, output width); may be missing
    scores   (choices of all its examples)
    rows, input_end, output_end, scores_end   (examples): the row and where its part ends

Reading maps the files and copies only the requested rows, so memory does not grow with the store.
Shapes: B examples, I task-input tokens, C choices, T tokens per choice, H width.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from knife.core import strict_json
from knife.core.atomic import replacing
from knife.data.batches import Batch
from knife.method.objective import TeacherBatch
from knife.models.base import Output

SHARD_BYTES = 256 * 2**20
_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SUMMARY = "states.json"
# More than the relative error of a difference of two sums in double precision.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Summary:
    """A description of a teacher's states, with their variance.

    Attributes:
        layers: the teacher's layers that are kept, from 1.
        width: width of the task-input states.
        output_width: width of the answer-side states.
        outputs: whether answer-side states are kept.
        precision: fp32 or bf16.
        variance: variance of all elements by layer, as `str(layer)`; it scales `scaled_mse`.
        tokens: task-input tokens of all examples.
        stored: whether there are shards; an online teacher needs only the variance.
    """

    layers: list[int]
    width: int
    output_width: int
    outputs: bool
    precision: Literal["fp32", "bf16"]
    variance: dict[str, float]
    tokens: int
    stored: bool

    def write(self, folder: Path) -> None:
        """Write the summary beside the shards."""
        (folder / _SUMMARY).write_text(strict_json.dumps(asdict(self), indent=1))

    @staticmethod
    def read(folder: Path) -> "Summary":
        """Read a summary written by `write`."""
        return Summary(**json.loads((folder / _SUMMARY).read_text()))


class Moments:
    """Count, sum and sum of squares of states by layer, in double precision."""

    def __init__(self, layers: Sequence[int]) -> None:
        self.layers = list(layers)
        self.tokens = 0
        self.sums_L3 = torch.zeros(len(self.layers), 3, dtype=torch.float64)

    def add(self, states_NLH: Tensor) -> None:
        """Add the states of N tokens in all layers."""
        self.tokens += states_NLH.shape[0]
        for number, states_NH in enumerate(states_NLH.double().unbind(1)):
            count = torch.tensor(states_NH.numel(), dtype=torch.float64)
            sums = torch.stack([count, states_NH.sum(), states_NH.square().sum()])
            self.sums_L3[number] += sums

    def merge(self, other: "Moments") -> None:
        """Add the moments of another."""
        self.tokens += other.tokens
        self.sums_L3 += other.sums_L3

    def variance(self) -> dict[str, float]:
        """Return the variance of all elements by layer; 0 if it is only rounding error."""
        values = {}
        for layer, (count, total, squares) in zip(self.layers, self.sums_L3.tolist(), strict=True):
            variance = squares / count - (total / count) ** 2
            values[str(layer)] = variance if variance > _ROUNDING * squares / count else 0.0
        return values


def example_states(output: Output, layers: Sequence[int], batch: Batch) -> list[dict[str, Tensor]]:
    """Split a batch's output into the states of each example, on the CPU, without padding."""
    input_BILH = torch.stack([output.input_states[layer] for layer in layers], 2).cpu()
    parts = []
    for b in range(len(batch.row_B)):
        parts.append(
            {
                "input": input_BILH[b][output.input_mask_BI[b].bool().cpu()],
                "output": output.output_states_BCTH[b][output.output_mask_BCT[b].bool()].cpu(),
                "scores": output.scores_BC[b][batch.choice_exists_BC[b]].float().cpu(),
            }
        )
    return parts


def not_finite(parts: Sequence[dict[str, Tensor]], precision: Literal["fp32", "bf16"]) -> list[int]:
    """Return the indices of examples with a NaN or infinite state in the stored precision."""
    return [
        index
        for index, part in enumerate(parts)
        if not all(bool(states.to(_DTYPE[precision]).isfinite().all()) for states in part.values())
    ]


def write_shard(
    path: Path, rows: Sequence[int], parts: Sequence[dict[str, Tensor]], summary: Summary
) -> None:
    """Write the states of some examples as one shard: synced to disk, then renamed into place."""
    dtype = _DTYPE[summary.precision]
    names = ("input", "output", "scores") if summary.outputs else ("input", "scores")
    tensors = {"rows": torch.tensor(rows)}
    for name in names:
        whole = torch.cat([part[name] for part in parts])
        tensors[name] = whole if name == "scores" else whole.to(dtype).contiguous()
        tensors[f"{name}_end"] = torch.tensor([len(part[name]) for part in parts]).cumsum(0)
    with replacing(path) as unfinished:
        save_file(tensors, unfinished)


class StoredStates:
    """A teacher's stored states, read by example row in any order.

    Attributes:
        summary: their description.
    """

    def __init__(self, folder: Path) -> None:
        self.summary = Summary.read(folder)
        names = ("input", "output", "scores") if self.summary.outputs else ("input", "scores")
        files: list[Any] = [
            safe_open(p, framework="pt") for p in sorted(folder.glob("shard-*.safetensors"))
        ]
        # These tensors are views of the mapped files: only indexed elements are read.
        self._shards = [{n: f.get_tensor(n) for n in names} for f in files]
        rows = [file.get_tensor("rows") for file in files]
        order = torch.cat(rows).argsort()
        self._shard_N = torch.cat([torch.full_like(r, i) for i, r in enumerate(rows)])[order]
        self._spans_N2: dict[str, Tensor] = {}
        for name in names:
            ends = [file.get_tensor(f"{name}_end") for file in files]
            starts = [torch.cat([end.new_zeros(1), end[:-1]]) for end in ends]
            self._spans_N2[name] = torch.stack([torch.cat(starts), torch.cat(ends)], 1)[order]

    def __len__(self) -> int:
        return len(self._shard_N)

    def read(self, rows: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Read `input` (tokens, layers, width), `output` or `scores` of some examples.

        Returns them concatenated, and how many each example has.
        """
        starts, ends = self._spans_N2[name][rows].unbind(1)
        counts = ends - starts
        first = counts.cumsum(0) - counts
        places = torch.arange(int(counts.sum())) + (starts - first).repeat_interleave(counts)
        shards = self._shard_N[rows].repeat_interleave(counts)
        some = self._shards[0][name]
        flat = torch.empty(len(places), *some.shape[1:], dtype=some.dtype)
        for number in set(shards.tolist()):
            chosen = shards == number
            flat[chosen] = self._shards[number][name][places[chosen]]
        return flat, counts

    def batch(self, batch: Batch) -> TeacherBatch:
        """Return the states for a student's batch, padded like its task inputs."""
        rows, device = batch.row_B.cpu(), batch.row_B.device
        columns = int(batch.input_mask_BL.sum(1).max())
        flat, counts = self.read(rows, "input")
        input_BILH = flat.new_zeros(len(rows), columns, *flat.shape[1:])
        input_BILH[torch.arange(columns) < counts[:, None]] = flat
        scores, _ = self.read(rows, "scores")
        exists_BC = batch.choice_exists_BC.cpu()
        scores_BC = torch.full(exists_BC.shape, torch.finfo(torch.float32).min)
        scores_BC[exists_BC] = scores
        output_BCTH = None
        if self.summary.outputs:
            flat, _ = self.read(rows, "output")
            mask_BCT = self._output_mask(batch, len(flat)).cpu().bool()
            output_BCTH = flat.new_zeros(*mask_BCT.shape, flat.shape[1])
            output_BCTH[mask_BCT] = flat
            output_BCTH = output_BCTH.to(device)
        states = input_BILH.to(device).unbind(2)
        return TeacherBatch(
            input_states=dict(zip(self.summary.layers, states, strict=True)),
            output_states_BCTH=output_BCTH,
            scores_BC=scores_BC.to(device),
        )

    @staticmethod
    def _output_mask(batch: Batch, count: int) -> Tensor:
        """Return the mask of answer-side states: each choice's tokens, or one per choice
        (encoder-only)."""
        if count == int(batch.choice_mask_BCT.sum()):
            return batch.choice_mask_BCT
        if count != int(batch.choice_exists_BC.sum()):
            raise ValueError("the stored states are of other choices than the batch")
        return batch.choice_exists_BC.unsqueeze(-1)


class OnlineTeacher:
    """A frozen teacher that computes its states for every batch."""

    def __init__(self, backbone: Any, layers: Sequence[int]) -> None:
        self.backbone = backbone.eval().requires_grad_(False)
        self.layers = list(layers)

    @torch.no_grad()
    def batch(self, batch: Batch) -> TeacherBatch:
        """Return the states for a batch that was collated with its rationales."""
        output: Output = self.backbone(batch, self.layers)
        return TeacherBatch(output.input_states, output.output_states_BCTH, output.scores_BC)
