"""Greedy generation with transformers, and what goes for all generation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria


class Prefix:
    """The first tokens of each row that is generated: they are read instead of what the model would
    have generated there."""

    def __init__(self, texts: Sequence[Sequence[int]], device: torch.device) -> None:
        width = max(map(len, texts), default=0)
        rows = [[*text, *[-1] * (width - len(text))] for text in texts]
        self._ids_BT = torch.tensor(rows, dtype=torch.long, device=device)

    def put(self, ids_B: Tensor, step: int) -> Tensor:
        """Return the tokens of a step, from 0: the given ones, or else those generated."""
        if step >= self._ids_BT.shape[1]:
            return ids_B
        given_B = self._ids_BT[:, step]
        return torch.where(given_B >= 0, given_B, ids_B)


class _Put(LogitsProcessor):  # type: ignore[misc]
    """Leaves only the tokens of a prefix to choose, or else the best one."""

    def __init__(self, prefix: Prefix, start: int) -> None:
        self._prefix, self._start = prefix, start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ids_B = self._prefix.put(scores.argmax(-1), input_ids.shape[1] - self._start)
        return torch.full_like(scores, -torch.inf).scatter(1, ids_B[:, None], 0.0)


class _Closed(StoppingCriteria):  # type: ignore[misc]
    """Stops a row once it has `eos_count` closing tokens."""

    def __init__(self, eos: int, eos_count: int, start: int) -> None:
        self.eos, self.eos_count, self.start = eos, eos_count, start

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        return (input_ids[:, self.start :] == self.eos).sum(1) >= self.eos_count


class _Finite(LogitsProcessor):  # type: ignore[misc]
    """Records the rows whose scores were not finite before they were done."""

    def __init__(self, closed: _Closed) -> None:
        self._closed = closed
        self.bad_B: Tensor | bool = False

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        open_B = ~self._closed(input_ids, scores)
        self.bad_B = self.bad_B | (open_B & ~finite(scores))
        return scores


def finite(logits_BV: Tensor) -> Tensor:
    """Whether the maximum of each row's logits is finite; a NaN in the row makes it NaN."""
    return logits_BV.amax(-1).isfinite()


@torch.no_grad()
def generate(
    model: Any,
    inputs: dict[str, Any],
    first_BS: Tensor,
    *,
    eos: int,
    eos_count: int,
    max_tokens: int,
    prefix: Prefix | None,
    synced_gpus: bool,
) -> list[list[int] | None]:
    """Generate greedily; return each row up to its last closing token, or None if the model's
    outputs were not finite.

    Args:
        model: a transformers model that generates.
        inputs: the inputs of its `generate`.
        first_BS: the tokens that its decoder starts from.
        eos: the token that ends a text.
        eos_count: how many texts to generate per row.
        max_tokens: the most tokens to generate.
        prefix: the first ones of these, if they are given.
        synced_gpus: whether weights are sharded over workers, so that all must continue until the
            last of them is done.
    """
    config = model.generation_config
    settings = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        num_beams=1,
        # Rows of two texts continue after the first closing token.
        eos_token_id=None,
        pad_token_id=0 if config.pad_token_id is None else config.pad_token_id,
        bos_token_id=config.bos_token_id,
        decoder_start_token_id=int(first_BS[0, 0]),
    )
    start = first_BS.shape[1]
    kept = model.generation_config
    # Values that `settings` leaves unset would be taken from the model's own config.
    model.generation_config = settings
    closed = _Closed(eos, eos_count, start)
    seen = _Finite(closed)
    try:
        whole_BN = model.generate(
            **inputs,
            decoder_input_ids=first_BS,
            generation_config=settings,
            stopping_criteria=[closed],
            logits_processor=[seen, *([_Put(prefix, start)] if prefix else [])],
            synced_gpus=synced_gpus,
        )
    finally:
        model.generation_config = kept
    bad = torch.as_tensor(seen.bad_B).expand(len(whole_BN)).tolist()
    return [
        None if unread else up_to(row[start:], eos, eos_count)
        for row, unread in zip(whole_BN.tolist(), bad, strict=True)
    ]


def up_to(ids: list[int], eos: int, eos_count: int) -> list[int]:
    """Return ids up to the `eos_count`-th closing token, or all if there are fewer of these."""
    ends = [at for at, token in enumerate(ids) if token == eos]
    return ids[: ends[eos_count - 1] + 1] if len(ends) >= eos_count else ids
