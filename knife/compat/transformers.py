"""Private parts of transformers, as of version 5.23. Importing this module does not import it."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from knife.compat.replaced import replaced


def model_class_of(auto_class: Any, config: Any) -> Any:
    """Return the class that an auto class picks for a config, without instantiating it."""
    found = auto_class._model_mapping[type(config)]
    # The first of several (Funnel) is the one with all layers.
    return found[0] if isinstance(found, tuple) else found


def supports_attention(model_class: Any, implementation: str) -> bool:
    """Whether a model class supports `sdpa`, `flex_attention` or `flash_attention_2`."""
    names = {
        "sdpa": "_supports_sdpa",
        "flex_attention": "_supports_flex_attn",
        "flash_attention_2": "_supports_flash_attn",
    }
    return bool(getattr(model_class, names[implementation]))


def attention_of(config: Any) -> str:
    """Return the attention implementation that a model is set to."""
    return str(config._attn_implementation)


def match_keys(model: Any, state: dict[str, Any]) -> Any:
    """Match a state dict with a model, both on the meta device, as `from_pretrained` does, which
    cannot do it without loading.

    Returns:
        transformers' loading report: missing, unexpected and mismatched keys.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import convert_and_load_state_dict_in_model
    from transformers.modeling_utils import LoadStateDictConfig

    mapping = get_model_conversion_mapping(model)
    settings = LoadStateDictConfig(device_map={"": "meta"}, weight_mapping=mapping)
    info, _ = convert_and_load_state_dict_in_model(model, state, settings)
    model.tie_weights(missing_keys=info.missing_keys, recompute_mapping=False)
    model._adjust_missing_and_unexpected_keys(info)
    return info


def save_model(model: Any, folder: Path, state: dict[str, Any]) -> None:
    """Write a model with the given weights as `save_pretrained` does.

    To find out whether the model is one of DeepSpeed's engines, which it never is, accelerate would
    import DeepSpeed: seconds, and warnings.
    """
    if find_spec("accelerate") is None:
        model.save_pretrained(folder, state_dict=state)
        return
    import accelerate.utils.other

    with replaced(accelerate.utils.other, "is_deepspeed_available", lambda: False):
        model.save_pretrained(folder, state_dict=state)
