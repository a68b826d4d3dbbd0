"""The states before a language model's output head."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def before_head(
    model: Any, pick: Callable[[Tensor], Tensor], kept: list[Tensor] | None = None
) -> Iterator[None]:
    """Meanwhile, a model makes logits of those of its last states only that `pick` returns; all of
    them are appended to `kept`.

    The model makes them itself since many scale or bound what the head returns (Granite, Cohere,
    Gemma 2); logits of all columns would need far more memory.
    """

    def enter(_module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        if kept is not None:
            kept.append(args[0])
        return (pick(args[0]),)

    handle = model.get_output_embeddings().register_forward_pre_hook(enter)
    try:
        yield
    finally:
        handle.remove()
