"""Low-rank adapters in a backbone's linear layers, by the library peft, and their merged weights.

The weight of a linear layer becomes W + alpha / rank * B A, with W frozen (Hu et al. 2021, arXiv
2106.09685, section 4.1). An encoder's answer head, which is new, is trained whole.
"""

import json
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from knife.config.lora import Lora
from knife.models import choice_rows, encoder_only
from knife.models.families import ROWS, family
from knife.models.files import some
from knife.models.load import transformers_model
from knife.models.weights import bare_model, head_size

_ADAPTER = "default"
_LINEAR = (nn.Linear, Conv1D)
# What peft calls the frozen layer, and what it adds to it.
_BASE, _ADDED = ".base_layer.", ".lora_"


def add_adapters(backbone: nn.Module, lora: Lora, seed: int) -> None:
    """Add adapters to a backbone's transformers model, in place, and freeze the model's own
    weights; before training they change nothing. Their weights are drawn from `seed`.

    Raises:
        ValueError: the model has no such layers, or peft cannot adapt them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _inject(transformers_model(backbone), lora)


def merged(backbone: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a backbone's gathered state with its adapters merged into the weights, by the names
    that these have without adapters.

    Merged weights are in fp32: rounded to bf16, they would lose small changes.
    """
    found = {
        name.replace(_BASE, "."): tensor for name, tensor in state.items() if _ADDED not in name
    }
    for path, layer in backbone.named_modules():
        if hasattr(layer, "lora_A"):
            down, up = (
                state[f"{path}.lora_{part}.{_ADAPTER}.weight"].float() for part in ("A", "B")
            )
            change = layer.scaling[_ADAPTER] * (up @ down)
            # GPT-2 keeps the weights of its linear layers transposed.
            change = change.T if layer.fan_in_fan_out else change
            found[f"{path}.weight"] = found[f"{path}.weight"].float() + change
    return found


def adapters_size(config: Any, lora: Lora) -> int:
    """Return how many parameters are trained: those of the adapters, and an encoder's answer head.

    Raises:
        ValueError: as `add_adapters` does.
    """
    return _size(config.model_type, config.to_json_string(use_diff=False), lora)


@lru_cache
def _size(kind: str, values: str, lora: Lora) -> int:
    config = CONFIG_MAPPING[kind].from_dict(json.loads(values))
    model = _bare(config)
    _inject(model, lora)
    head = head_size(config.hidden_size) if family(config) == "encoder" else 0
    adapters: int = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return head + adapters


def layer_ends(config: Any, lora: Lora) -> set[str]:
    """Return the last parts of the names of the layers that have an adapter.

    Raises:
        ValueError: as `add_adapters` does.
    """
    return {_last_part(name) for name in _targets(_bare(config), lora)}


def _bare(config: Any) -> Any:
    """Return a model without weights, with those parts frozen that its backbone freezes."""
    model = bare_model(config)
    if family(config) == "encoder":
        encoder_only.freeze_unread(model)
    elif config.model_type in ROWS:
        choice_rows.freeze_unread(model)
    return model


def _inject(model: PreTrainedModel, lora: Lora) -> None:
    # Imported here: it takes a second, and few runs have adapters.
    from peft import LoraConfig, inject_adapter_in_model

    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets(model, lora),
    )
    with warnings.catch_warnings():
        # It notices by itself that GPT-2's weights are transposed.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        try:
            inject_adapter_in_model(settings, model)
        except ValueError as error:
            raise ValueError(f"peft refuses a layer; name others in targets ({error})") from error


def _targets(model: PreTrainedModel, lora: Lora) -> list[str]:
    """Return the names of the linear layers that have an adapter: those that are trained, without
    the output head.

    Raises:
        ValueError: there are none, or a target is the name of none.
    """
    head = model.get_output_embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, _LINEAR) and module is not head and module.weight.requires_grad
    ]
    if lora.targets is None:
        if not names:
            raise ValueError("the model has no linear layers of torch's kind")
        return names
    unknown = [end for end in lora.targets if not any(_ends(name, end) for name in names)]
    if unknown:
        ends = {_last_part(name) for name in names}
        raise ValueError(
            f"targets: no linear layer's name ends with {', '.join(map(repr, unknown))}; there are "
            f"{some(ends, 12)}"
        )
    return [name for name in names if any(_ends(name, end) for end in lora.targets)]


def _ends(name: str, end: str) -> bool:
    """Whether a layer's name ends with whole parts."""
    return f".{name}".endswith(f".{end}")


def _last_part(name: str) -> str:
    return name.rpartition(".")[2]
