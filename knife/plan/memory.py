"""Formulas for what training needs: memory per worker, communication per step, states on disk.

Weights, gradients and optimizer states follow the ZeRO paper (Rajbhandari et al. 2019, arXiv
1910.02054, sections 3 and 5) as allocated by DeepSpeed 0.19 with torch's AdamW; buffers, scratch
memory and activations are our own count of its allocations. docs/scaling.md says how well they
match measured engines. All sizes are in bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from knife.config.run import Training
from knife.config.scale import Scale
from knife.data.token_table import TokenTable
from knife.data.tokens import Tokens
from knife.method.states_parts import StatesPart
from knife.plan.model_size import ModelSize

# DeepSpeed's defaults, in elements: what is reduced at a time (all of a smaller model), the
# parameters that stay gathered, that are prefetched, and that are updated at a time.
BUCKET = 500_000_000
_LIVE, _PREFETCH, _SUB_GROUP = 1_000_000_000, 50_000_000, 1_000_000_000


@dataclass(frozen=True)
class Lengths:
    """The lengths of the examples of a training split, in tokens.

    Attributes:
        inputs, wholes: the longest task input, alone and with its rationale.
        choices, choice: the most choices of an example, and the longest choice.
        all_inputs, all_choices: tokens of all task inputs and of all choices together.
        count, scores: numbers of examples, and of all their choices.
    """

    inputs: int
    wholes: int
    choices: int
    choice: int
    all_inputs: int
    all_choices: int
    count: int
    scores: int


def token_lengths(tokens: Sequence[Tokens]) -> Lengths:
    """Return the lengths of training examples."""
    if isinstance(tokens, TokenTable):
        inputs, choices = tokens.input_lengths, tokens.choice_lengths
        wholes, counts = inputs + tokens.rationale_lengths, tokens.choice_counts
    else:
        inputs = np.array([len(each.input_ids) for each in tokens], dtype=np.int64)
        wholes = inputs + np.array([len(each.rationale_ids) for each in tokens], dtype=np.int64)
        counts = np.array([len(each.choice_ids) for each in tokens], dtype=np.int64)
        choices = np.array([len(ids) for each in tokens for ids in each.choice_ids], dtype=np.int64)
    return Lengths(
        inputs=int(inputs.max(initial=0)),
        wholes=int(wholes.max(initial=0)),
        choices=int(counts.max(initial=0)),
        choice=int(choices.max(initial=0)),
        all_inputs=int(inputs.sum()),
        all_choices=int(choices.sum()),
        count=len(tokens),
        scores=len(choices),
    )


@dataclass(frozen=True)
class MemoryEstimate:
    """The peak memory of one training worker, and the communication of a step.

    Attributes:
        parameters: number of parameters of the model.
        trained: how many of them are trained.
        accumulate: number of parts of its batches.
        weights, gradients, optimizer: the model's, and the optimizer's fp32 weights and moments.
        least: the minimum for training: these three without what ZeRO-3 has gathered, but at least
            the whole model, which is there at the start.
        buffers: DeepSpeed's buckets for communication.
        scratch: temporary memory of an optimizer step.
        activations: what the backward pass needs for the longest batch; an estimate.
        teacher: weights of an online teacher, or a batch of stored states.
        peak: the most in use at a time, with buffers and activations of the backward pass or the
            scratch memory of the step, whichever is more.
        communication: bytes that a worker sends in an optimizer step.
    """

    parameters: int
    trained: int
    accumulate: int
    weights: int
    gradients: int
    optimizer: int
    least: int
    buffers: int
    scratch: int
    activations: int
    teacher: int
    peak: int
    communication: int


def training_need(
    size: ModelSize,
    training: Training,
    scale: Scale,
    lengths: Lengths,
    *,
    rationale: bool,
    adapters: int | None = None,
    second: Lengths | None = None,
    teacher: int = 0,
    gpu: bool = False,
) -> MemoryEstimate:
    """Return what each worker needs for training.

    `adapters` is the number of trained parameters if the model's own are frozen, `second` has the
    lengths of the second task of the same step, `teacher` is a worker's memory for an online
    teacher or stored states.
    """
    rows = max(1, training.batch_size // (scale.workers * training.accumulate))
    kept = sum(
        activations(
            size,
            task,
            rows,
            scale.precision,
            rationale=rationale,
            gradient_checkpointing=scale.gradient_checkpointing,
        )
        for task in (lengths, second)
        if task
    )
    return _need(size, adapters, scale, training.accumulate, kept, teacher, gpu=gpu)


def _need(
    size: ModelSize,
    adapters: int | None,
    scale: Scale,
    accumulate: int,
    kept: int,
    teacher: int,
    *,
    gpu: bool,
) -> MemoryEstimate:
    workers, stage = scale.workers, scale.zero_stage
    count = size.parameters if adapters is None else adapters
    frozen = 0 if adapters is None else size.parameters
    element_bytes = 2 if scale.precision == "bf16" else 4
    # Whether gradients of bf16 weights are in fp32.
    summed = element_bytes == 2 and accumulate > 1
    own = -(-count // workers) if stage else count
    weights, gradients, optimizer = _states(count, scale, accumulate)
    if stage == 3 and workers > 1:
        # Parameters gathered for a layer stay, up to a limit, in addition to prefetched ones.
        weights += element_bytes * (min(count, _LIVE) + min(count, _PREFETCH))
    if stage == 1 and summed:
        # The gradients are one tensor, sent in bf16 and used unchanged in the step.
        buffers, scratch = element_bytes * count, 0
    elif stage:
        buffers = element_bytes * min(count, BUCKET)
        share = min(1.0, _SUB_GROUP / count) if stage == 3 else 1.0
        scratch = int(share * 4 * own)
    else:
        buffers = 0 if workers == 1 else (element_bytes + 4 * summed) * min(count, BUCKET)
        # In bf16, there is a copy in the other type: of the gradients for the step, or of summed
        # ones for their norm.
        scratch = count * (2 if summed else 4) if element_bytes == 2 else 0
    weights += element_bytes * frozen
    rest = weights + optimizer + teacher
    if stage == 0 or (stage == 1 and summed):
        # Gradients are summed over workers after the activations are freed.
        peak = rest + gradients + max(kept, buffers, scratch)
    elif stage == 3:
        peak = rest + gradients + buffers + max(kept, scratch)
    else:
        # The step frees the gradients once it has copied its own part of them to fp32.
        peak = rest + max(gradients + buffers + kept, scratch)
    if frozen and not gpu:
        # Merged weights are in fp32, beside the model.
        peak = max(peak, rest + 4 * frozen)
    sent = int(element_bytes * _sent(stage, count, accumulate) * count * (workers - 1) / workers)
    return MemoryEstimate(
        parameters=frozen + count,
        trained=count,
        accumulate=accumulate,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        least=least(count, scale, accumulate, frozen),
        buffers=buffers,
        scratch=scratch,
        activations=kept,
        teacher=teacher,
        peak=max(peak, element_bytes * (frozen + count)),
        communication=sent,
    )


def least(count: int, scale: Scale, accumulate: int, frozen: int = 0) -> int:
    """Return a worker's minimum memory to train `count` parameters beside `frozen` ones: weights,
    gradients and optimizer states, but at least all weights, which it has before it keeps only its
    own part."""
    element_bytes = 2 if scale.precision == "bf16" else 4
    trained = max(sum(_states(count, scale, accumulate)), element_bytes * count)
    return trained + element_bytes * frozen


def _states(count: int, scale: Scale, accumulate: int) -> tuple[int, int, int]:
    """Return a worker's weights, gradients and optimizer states, each whole or its own part."""
    stage, bf16 = scale.zero_stage, scale.precision == "bf16"
    own = -(-count // scale.workers) if stage else count
    element_bytes = 2 if bf16 else 4
    weights = element_bytes * (own if stage == 3 else count)
    # Gradients of several parts of a batch are summed in fp32.
    gradients = (element_bytes if accumulate == 1 else 4) * (own if stage >= 2 else count)
    # Adam's two moments; ZeRO and bf16 also train an fp32 copy of the weights.
    return weights, gradients, (12 if stage or bf16 else 8) * own


def _sent(stage: int, count: int, accumulate: int) -> int:
    """Return what a worker sends per step, as a multiple of all parameters; an all-reduce counts 2.

    DeepSpeed's stages 1 and 2 reduce gradients over all workers and gather the weights; stage 3
    gathers weights once if all of them stay gathered, else for forward and backward pass, and
    scatters the gradients. Stages 2 and 3 reduce the gradients of every part of a batch.
    """
    if stage == 3:
        return 1 + accumulate if count <= _LIVE else 3 * accumulate
    if stage == 2:
        return 2 * accumulate + 1
    return 3 if stage else 2


def activations(
    size: ModelSize,
    lengths: Lengths,
    rows: int,
    precision: str,
    *,
    rationale: bool,
    gradient_checkpointing: bool = False,
) -> int:
    """Return what the forward pass of `rows` examples, padded to the longest, keeps for the
    backward pass.

    With gradient checkpointing, these are the states between layers, and the recomputed
    activations of one layer at a time.

    Counted from the tensors that transformers' T5, BERT, GPT-2 and Llama layers save in training,
    with attention as on a CPU: fused attention on a GPU keeps no probabilities, and needs less.
    """
    element_bytes = 2 if precision == "bf16" else 4
    length = lengths.wholes if rationale else lengths.inputs
    hidden, inner, masks = size.hidden, size.inner, int(size.dropout)
    attention = (3 * 4 + element_bytes) * inner
    probabilities = (1 + 2 * masks) * 4 * size.heads
    answer = lengths.choices * lengths.choice
    # There are three copies of the scores over the vocabulary when the loss is computed.
    scores = 3 * 4 * answer * size.vocabulary
    # The columns that one column sees.
    seen = length
    if size.family == "decoder" and size.repeats:
        # The task input is read with each choice, after a reading with the rationale.
        once = lengths.inputs + lengths.choice
        seen = max(length, once)
        length = lengths.choices * once + lengths.wholes * int(rationale)
    elif size.family == "decoder":
        length = seen = length + answer
    if size.family == "decoder":
        if size.gated:
            # Norms are in fp32; without dropout, attention is fused on a CPU as well.
            layer = 2 * (4 + 2 * element_bytes) * hidden
            layer += 4 * element_bytes * (size.feed_forward + inner)
        else:
            # GPT-2's activation function is composed of several operations.
            layer = (4 + 2 * masks) * element_bytes * hidden
            layer += 5 * element_bytes * size.feed_forward + attention + probabilities * seen
        ends = (4 + element_bytes) * hidden + element_bytes * seen
    elif size.family == "encoder":
        layer = (4 + 2 * masks) * element_bytes * hidden
        layer += 2 * element_bytes * size.feed_forward + attention + probabilities * length
        ends, scores = 4 * element_bytes * hidden, 0
    if size.family != "encoder-decoder":
        stack = _stack(
            [(size.layers, layer, element_bytes * hidden)],
            gradient_checkpointing=gradient_checkpointing,
        )
        return rows * (length * (stack + ends) + scores)
    between = ((6 if size.gated else 1) + 2 * masks) * element_bytes * size.feed_forward
    # T5 computes norms in fp32, and keeps a copy.
    norm = ((3 + masks) * element_bytes + (4 if element_bytes == 2 else 0)) * hidden
    encoder = length * (2 * norm + between + attention + probabilities * length)
    decoder = answer * (3 * norm + between + attention + (4 + element_bytes) * inner)
    # Either every choice is next to all others, or the encoder's states are repeated for it.
    beside, read = (lengths.choice, lengths.choices) if size.repeats else (answer, 1)
    decoder += answer * probabilities * (beside + length) + read * length * 2 * 4 * inner
    ends = norm * (length + answer) + (read - 1) * length * element_bytes * hidden
    stack = _stack(
        [
            (size.layers, encoder, length * element_bytes * hidden),
            (size.decoder_layers, decoder, answer * element_bytes * hidden),
        ],
        gradient_checkpointing=gradient_checkpointing,
    )
    return rows * (stack + ends + scores)


def _stack(kinds: list[tuple[int, int, int]], *, gradient_checkpointing: bool) -> int:
    """Return what all layers keep; `kinds` has their number, and activations and states of one."""
    if not gradient_checkpointing:
        return sum(count * activations for count, activations, _ in kinds)
    largest = max(activations for _, activations, _ in kinds)
    return sum(count * states for count, _, states in kinds) + largest


def states_bytes(
    teacher: ModelSize, lengths: Lengths, part: StatesPart, precision: Literal["fp32", "bf16"]
) -> int:
    """Return the size on disk of a part of a teacher's stored states for all examples."""
    element_bytes = 2 if precision == "bf16" else 4
    if part == "scores":
        numbers = lengths.scores
    elif part == "output":
        answers = lengths.scores if teacher.family == "encoder" else lengths.all_choices
        numbers = answers * teacher.hidden
    else:
        numbers = lengths.all_inputs * teacher.hidden
    # Row numbers and the ends of the examples are 64-bit integers.
    return numbers * element_bytes + lengths.count * 8 * 2


def states_batch(
    teacher: ModelSize,
    lengths: Lengths,
    training: Training,
    scale: Scale,
    layers: int,
    precision: str,
) -> int:
    """Return the size of the stored states for one worker's batch."""
    rows = max(1, training.batch_size // (scale.workers * training.accumulate))
    return rows * lengths.inputs * layers * teacher.hidden * (2 if precision == "bf16" else 4)
