"""A backbone set up for training by `scale`: attention, gradient checkpointing, torch.compile."""

from typing import Any

from knife.config.scale import Scale
from knife.models.load import transformers_model


def scaled(backbone: Any, scale: Scale) -> Any:
    """Set up a backbone's transformers model for training, in place; weights keep their names.

    Gradient checkpointing recomputes a layer's activations in the backward pass (Chen et al. 2016,
    arXiv 1604.06174), with the same dropout. For T5 it also makes torch choose another sdpa
    kernel, which rounds as eager attention does.
    """
    model: Any = transformers_model(backbone)
    if scale.attention:
        model.set_attn_implementation(scale.attention)
    if scale.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if scale.compile:
        called = [model.base_model]
        if model.config.is_encoder_decoder:
            called.append(model.get_encoder())
        for module in called:
            # Batches differ in length: one compilation has to serve all of them.
            module.compile(dynamic=True)
    return backbone
