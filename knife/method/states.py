"""Teacher states: computed once, stored by part in memory-mapped shards, read in any order.

A part is one layer's states at the task-input positions, the answer-side states, or the scores of
the choices (`knife.method.states_parts`). It has a row per example. A shard is a safetensors file:

    values      (task-input tokens, answer tokens or choices of all its examples[, width])
    rows, end   (examples): the row and where its values end

and the moments of its values in the file's header. The shards of an online teacher, of which only
the variance is kept, have no values.

Reading maps the files and copies only the requested rows, so memory does not grow with the store.
Shapes: B examples, I task-input tokens, C choices, T tokens per choice, H width, N values.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
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
from knife.method.points import TaskInput
from knife.method.states_parts import StatesPart
from knife.models.base import Output

# A shard has about this size in fp32. While states are computed, one shard of each part is in
# memory.
SHARD_BYTES = 128 * 2**20
_DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SUMMARY = "states.json"
_MOMENTS = "moments"
# More than the relative error of a difference of two sums in double precision.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Summary:
    """A description of one part of a teacher's states.

    Attributes:
        width: numbers of a state; 1 for scores.
        precision: fp32 or bf16.
        variance: variance of all elements; that of a layer scales `scaled_mse`.
        stored: whether there are shards; an online teacher needs only the variance.
    """

    width: int
    precision: Literal["fp32", "bf16"]
    variance: float
    stored: bool

    def write(self, folder: Path) -> None:
        """Write the summary beside the shards."""
        (folder / _SUMMARY).write_text(strict_json.dumps(asdict(self), indent=1))

    @staticmethod
    def read(folder: Path) -> "Summary":
        """Read a summary written by `write`."""
        return Summary(**json.loads((folder / _SUMMARY).read_text()))


@dataclass(frozen=True)
class Moments:
    """Number, sum and sum of squares of the elements of states."""

    count: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    @staticmethod
    def of(states: Tensor) -> "Moments":
        """Return the moments of all elements, in double precision."""
        states = states.double()
        return Moments(states.numel(), float(states.sum()), float(states.square().sum()))

    @staticmethod
    def merged(parts: Iterable["Moments"]) -> "Moments":
        """Return the moments of several together; the last bits depend on their order."""
        count = total = squares = 0.0
        for part in parts:
            count, total = count + part.count, total + part.total
            squares += part.squares
        return Moments(count, total, squares)

    def variance(self) -> float:
        """Return the variance of all elements; 0 if it is only rounding error."""
        mean = self.squares / self.count
        variance = mean - (self.total / self.count) ** 2
        return variance if variance > _ROUNDING * mean else 0.0


def example_states(
    output: Output, parts: Collection[StatesPart], batch: Batch
) -> list[dict[StatesPart, Tensor]]:
    """Split a batch's output into parts of the states of each example, on the CPU, without
    padding."""
    found: list[dict[StatesPart, Tensor]] = [{} for _ in batch.row_B]
    for part in parts:
        if part == "output":
            values, mask = output.output_states_BCTH, output.output_mask_BCT.bool()
        elif part == "scores":
            values, mask = output.scores_BC.float(), batch.choice_exists_BC
        else:
            values, mask = output.input_states[part], output.input_mask_BI.bool()
        values, mask = values.cpu(), mask.cpu()
        for b, states in enumerate(found):
            states[part] = values[b][mask[b]]
    return found


def not_finite(states: Sequence[Tensor], precision: Literal["fp32", "bf16"]) -> list[int]:
    """Return the indices of examples with a NaN or infinite state in the stored precision."""
    return [
        place
        for place, each in enumerate(states)
        if not bool(each.to(_DTYPE[precision]).isfinite().all())
    ]


def write_shard(
    path: Path,
    rows: Sequence[int],
    states: Sequence[Tensor],
    precision: Literal["fp32", "bf16"],
    *,
    stored: bool = True,
) -> Moments:
    """Write one part of the states of some examples and return its moments.

    The file is synced to disk, then renamed into place. Unless the states are to be `stored`, it
    has only their moments.
    """
    moments = Moments.merged(Moments.of(each) for each in states)
    tensors = {"rows": torch.tensor(rows)}
    if stored:
        tensors["values"] = torch.cat(list(states)).to(_DTYPE[precision]).contiguous()
        tensors["end"] = torch.tensor([len(each) for each in states]).cumsum(0)
    header = {_MOMENTS: strict_json.dumps(asdict(moments))}
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, header)
    return moments


def shard_moments(path: Path) -> Moments:
    """Read the moments of a shard from its header."""
    with safe_open(path, framework="pt") as file:
        return Moments(**json.loads(file.metadata()[_MOMENTS]))


class StoredPart:
    """One part of a teacher's stored states, read by example row in any order.

    Attributes:
        summary: its description.
    """

    def __init__(self, folder: Path) -> None:
        self.summary = Summary.read(folder)
        files: list[Any] = [
            safe_open(p, framework="pt") for p in sorted(folder.glob("shard-*.safetensors"))
        ]
        # These tensors are views of the mapped files: only indexed elements are read.
        self._shards = [file.get_tensor("values") for file in files]
        rows = [file.get_tensor("rows") for file in files]
        order = torch.cat(rows).argsort()
        self._shard_N = torch.cat([torch.full_like(r, i) for i, r in enumerate(rows)])[order]
        ends = [file.get_tensor("end") for file in files]
        starts = [torch.cat([end.new_zeros(1), end[:-1]]) for end in ends]
        self._spans_N2 = torch.stack([torch.cat(starts), torch.cat(ends)], 1)[order]

    def __len__(self) -> int:
        return len(self._shard_N)

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Read the values of some examples, concatenated, and how many each example has."""
        starts, ends = self._spans_N2[rows].unbind(1)
        counts = ends - starts
        first = counts.cumsum(0) - counts
        places = torch.arange(int(counts.sum())) + (starts - first).repeat_interleave(counts)
        shards = self._shard_N[rows].repeat_interleave(counts)
        some = self._shards[0]
        flat = torch.empty(len(places), *some.shape[1:], dtype=some.dtype)
        for number in set(shards.tolist()):
            chosen = shards == number
            flat[chosen] = self._shards[number][places[chosen]]
        return flat, counts


class StoredStates:
    """The parts of a teacher's stored states that a student reads.

    Attributes:
        parts: the parts.
    """

    def __init__(self, folders: Mapping[StatesPart, Path]) -> None:
        self.parts = {part: StoredPart(folder) for part, folder in folders.items()}

    def batch(self, batch: Batch) -> TeacherBatch:
        """Return the states for a batch of the teacher's own tokens, padded like its task inputs.

        Raises:
            ValueError: an example has other tokens than there are states of it.
        """
        rows, device = batch.row_B.cpu(), batch.row_B.device
        task_input = TaskInput.of(batch)
        mask_BI = task_input.mask_BI.cpu().bool()
        input_states: dict[int, Tensor] = {}
        output_BCTH = scores_BC = None
        for part, stored in self.parts.items():
            flat, counts = stored.read(rows)
            if part == "output":
                mask_BCT = self._output_mask(batch, len(flat)).cpu().bool()
                output_BCTH = flat.new_zeros(*mask_BCT.shape, flat.shape[1])
                output_BCTH[mask_BCT] = flat
                output_BCTH = output_BCTH.to(device)
            elif part == "scores":
                exists_BC = batch.choice_exists_BC.cpu()
                scores_BC = torch.full(exists_BC.shape, torch.finfo(torch.float32).min)
                scores_BC[exists_BC] = flat
                scores_BC = scores_BC.to(device)
            else:
                if not torch.equal(counts, mask_BI.sum(1)):
                    raise ValueError("the stored states are of other task inputs than the batch")
                states_BIH = flat.new_zeros(*mask_BI.shape, flat.shape[1])
                states_BIH[mask_BI] = flat
                input_states[part] = states_BIH.to(device)
        return TeacherBatch(input_states, task_input, output_BCTH, scores_BC)

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
        return TeacherBatch(
            output.input_states,
            TaskInput.of(batch),
            output.output_states_BCTH,
            output.scores_BC,
        )
