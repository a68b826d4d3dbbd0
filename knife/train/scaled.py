"""A backbone as `scale` wants it trained: attention, gradient checkpointing, torch.compile."""

from typing import Any

from transformers import PreTrainedModel

from knife.config.run import Scale


def scaled(backbone: Any, scale: Scale) -> Any:
    """The same backbone, its transformers model set for training; names of weights stay.

    Gradient checkpointing computes a layer's activations again in the backward pass (Chen et al.
    2016, arXiv 1604.06174), with the same dropout. For T5 it also makes torch take another kernel
    of sdpa, which rounds as eager attention does.
    """
    (model,) = [m for m in backbone.children() if isinstance(m, PreTrainedModel)]
    if scale.attention:
        model.set_attn_implementation(scale.attention)
    if scale.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if scale.compile:
        called = [model.base_model]
        if model.config.is_encoder_decoder:
            called.append(model.get_encoder())
        for module in called:
            # Batches differ in length: one compilation has to do for all of them.
            module.compile(dynamic=True)
    return backbone
