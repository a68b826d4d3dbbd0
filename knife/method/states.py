"""Teacher states: computed once, stored in memory-mapped shards, read in any order.

One row an example: the states at its task-input positions in the chosen layers, its answer-side
states where output alignment wants them, and its choices' scores. A shard is a safetensors file:

    input    (task-input tokens of all its examples, layers, width)
    output   (answer tokens of all its examples, output width); may be missing
    scores   (choices of all its examples)
    rows, input_end, output_end, scores_end   (examples): the row and where its part ends

Reading maps the files and copies only the rows asked for, so memory does not grow with the store.
Shapes: B examples, I task-input tokens, C choices, T tokens a choice, H width.
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

from knife.data.batches import Batch
from knife.method.backbone import Output
from knife.method.objective import TeacherBatch

SHARD_BYTES = 256 * 2**20
_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SUMMARY = "states.json"


@dataclass(frozen=True)
class Summary:
    """What the states of a teacher are, and their variance.

    Attributes:
        layers: the teacher's layers that are kept, from 1.
        width: width of the encoder's states.
        output_width: width of the answer-side states.
        outputs: whether answer-side states are kept.
        precision: fp32 or bf16.
        variance: variance of all elements by layer, as `str(layer)`; it scales `scaled_mse`.
        tokens: task-input tokens of all examples.
        stored: whether there are shards; an online teacher needs the variance alone.
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
        """Write beside the shards."""
        (folder / _SUMMARY).write_text(json.dumps(asdict(self), indent=1))

    @staticmethod
    def read(folder: Path) -> "Summary":
        """Read what `write` wrote."""
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

    def variance(self) -> dict[str, float]:
        """Variance of all elements by layer."""
        values = {}
        for layer, (count, total, squares) in zip(self.layers, self.sums_L3.tolist(), strict=True):
            values[str(layer)] = squares / count - (total / count) ** 2
        return values


def example_states(output: Output, layers: Sequence[int], batch: Batch) -> list[dict[str, Tensor]]:
    """Cut a batch's output into each example's own states, on the CPU, without padding."""
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


def write_shard(
    path: Path, rows: Sequence[int], parts: Sequence[dict[str, Tensor]], summary: Summary
) -> None:
    """Write the states of some examples as one shard, by a rename from a temporary name."""
    dtype = _DTYPE[summary.precision]
    names = ("input", "output", "scores") if summary.outputs else ("input", "scores")
    tensors = {"rows": torch.tensor(rows)}
    for name in names:
        whole = torch.cat([part[name] for part in parts])
        tensors[name] = whole if name == "scores" else whole.to(dtype).contiguous()
        tensors[f"{name}_end"] = torch.tensor([len(part[name]) for part in parts]).cumsum(0)
    unfinished = path.with_suffix(".tmp")
    save_file(tensors, unfinished)
    unfinished.rename(path)


class StoredStates:
    """A teacher's stored states, read by example row in any order.

    Attributes:
        summary: what they are.
    """

    def __init__(self, folder: Path) -> None:
        self.summary = Summary.read(folder)
        self._shards: list[Any] = []
        self._places: dict[int, tuple[int, dict[str, tuple[int, int]]]] = {}
        self._names = ("input", "output", "scores") if self.summary.outputs else ("input", "scores")
        for number, path in enumerate(sorted(folder.glob("shard-*.safetensors"))):
            shard = safe_open(path, framework="pt")
            self._shards.append({name: shard.get_slice(name) for name in self._names})
            ends = {name: shard.get_tensor(f"{name}_end").tolist() for name in self._names}
            for position, row in enumerate(shard.get_tensor("rows").tolist()):
                spans = {
                    name: (end[position - 1] if position else 0, end[position])
                    for name, end in ends.items()
                }
                self._places[row] = (number, spans)

    def __len__(self) -> int:
        return len(self._places)

    def read(self, row: int, name: str) -> Tensor:
        """One example's `input` (tokens, layers, width), `output` or `scores`."""
        number, spans = self._places[row]
        start, end = spans[name]
        part: Tensor = self._shards[number][name][start:end]
        return part

    def batch(self, batch: Batch) -> TeacherBatch:
        """The states of a student's batch, padded as its task inputs are."""
        rows = batch.row_B.tolist()
        B, C, T = batch.choice_ids_BCT.shape
        columns = int(batch.input_mask_BL.sum(1).max())
        device = batch.row_B.device
        summary = self.summary
        dtype = _DTYPE[summary.precision]
        input_BILH = torch.zeros(B, columns, len(summary.layers), summary.width, dtype=dtype)
        scores_BC = torch.full((B, C), torch.finfo(torch.float32).min)
        output_BCTH = None
        for b, row in enumerate(rows):
            states_ILH = self.read(row, "input")
            input_BILH[b, : len(states_ILH)] = states_ILH
            scores = self.read(row, "scores")
            scores_BC[b, : len(scores)] = scores
        if summary.outputs:
            flat = torch.cat([self.read(row, "output") for row in rows])
            mask_BCT = self._output_mask(batch, len(flat)).cpu()
            output_BCTH = torch.zeros(*mask_BCT.shape, summary.output_width, dtype=dtype)
            output_BCTH[mask_BCT.bool()] = flat
            output_BCTH = output_BCTH.to(device)
        states = input_BILH.to(device).unbind(2)
        return TeacherBatch(
            input_states=dict(zip(summary.layers, states, strict=True)),
            output_states_BCTH=output_BCTH,
            scores_BC=scores_BC.to(device),
        )

    @staticmethod
    def _output_mask(batch: Batch, count: int) -> Tensor:
        """Answer-side states stand at each choice's tokens, or one a choice (encoder-only)."""
        if count == int(batch.choice_mask_BCT.sum()):
            return batch.choice_mask_BCT
        assert count == int(batch.choice_exists_BC.sum()), "stored states of other choices"
        return batch.choice_exists_BC.unsqueeze(-1)


class OnlineTeacher:
    """A frozen teacher that computes its states anew for every batch."""

    def __init__(self, backbone: Any, layers: Sequence[int]) -> None:
        self.backbone = backbone.eval().requires_grad_(False)
        self.layers = list(layers)

    @torch.no_grad()
    def batch(self, batch: Batch) -> TeacherBatch:
        """The states of a batch that was collated with its rationales."""
        output: Output = self.backbone(batch, self.layers)
        return TeacherBatch(output.input_states, output.output_states_BCTH, output.scores_BC)
