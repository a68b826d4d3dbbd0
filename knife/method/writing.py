"""Writing text greedily, with transformers' own generation."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteria


class _Closed(StoppingCriteria):  # type: ignore[misc]
    """A row is done when it has so many closing tokens."""

    def __init__(self, closing: int, closings: int, start: int) -> None:
        self.closing, self.closings, self.start = closing, closings, start

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:  # noqa: ARG002
        return (input_ids[:, self.start :] == self.closing).sum(1) >= self.closings


@torch.no_grad()
def write(
    model: Any,
    inputs: dict[str, Any],
    *,
    start: int,
    closing: int,
    closings: int,
    most: int,
    together: bool,
) -> list[list[int]]:
    """The likeliest next token, again and again; each row up to its last closing token.

    Args:
        model: a transformers model that generates.
        inputs: what its `generate` reads.
        start: how many tokens of what it gives back were there before.
        closing: the token that ends a text, and `closings` how many texts are to be written.
        most: the most tokens to write.
        together: whether other workers hold parts of the weights, so that all must go on until
            the last of them is done.
    """
    config = model.generation_config
    settings = GenerationConfig(
        max_new_tokens=most,
        do_sample=False,
        num_beams=1,
        # Rows of two texts go on behind the first closing token.
        eos_token_id=None,
        pad_token_id=0 if config.pad_token_id is None else config.pad_token_id,
        bos_token_id=config.bos_token_id,
        decoder_start_token_id=model.config.to_dict().get("decoder_start_token_id"),
    )
    kept = model.generation_config
    # What `settings` leaves open would be taken from the model's own.
    model.generation_config = settings
    try:
        whole_BN = model.generate(
            **inputs,
            generation_config=settings,
            stopping_criteria=[_Closed(closing, closings, start)],
            synced_gpus=together,
        )
    finally:
        model.generation_config = kept
    return [up_to(row[start:], closing, closings) for row in whole_BN.tolist()]


def up_to(ids: list[int], closing: int, closings: int) -> list[int]:
    """What is written, up to its last closing token; all of it where there are not so many."""
    ends = [at for at, token in enumerate(ids) if token == closing]
    return ids[: ends[closings - 1] + 1] if len(ends) >= closings else ids
