"""Checks that all weights of a model come from its files, with the exceptions listed here.

transformers loads what fits, and silently initialises everything else at random. Here every weight
that is missing, unexpected or of another shape is an error.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from knife.compat.transformers import match_keys
from knife.core.errors import raise_errors
from knife.models.families import Family, family, model_class
from knife.models.files import (
    ANSWER_HEAD,
    SETTINGS,
    Header,
    read_tensor,
    some,
    tensor_headers,
    weight_headers,
)
from knife.models.text_part import text_config, text_headers, whole_kind

# Weights that files may lack. Tied weights are in a file once, under any of their names.
_MAY_LACK: dict[Family, tuple[str, ...]] = {
    "encoder-decoder": (),
    # Checkpoints of masked language models have no pooler; the answer head reads the states.
    "encoder": (r"(^|\.)pooler\.",),
    "decoder": (),
}
# Fixed tables that older versions of transformers saved as if they were weights.
_BUFFERS = (
    r"(^|\.)position_ids$",
    r"(^|\.)rotary_emb\.(original_)?inv_freq$",
    r"(^|\.)(attn|attention|self_attn)\.(masked_)?bias$",
)
# Weights that files may have in addition to the model's.
_MAY_HOLD: dict[Family, tuple[str, ...]] = {
    # T5's first checkpoints have a table that its decoder never uses.
    "encoder-decoder": (
        r"^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$",
    ),
    # Heads that an encoder was pretrained or finetuned with: the answer head replaces them.
    "encoder": (
        r"^(cls|lm_head|lm_predictions|mask_predictions|predictions|entity_predictions)\.",
        r"^(generator_predictions|generator_lm_head|discriminator_predictions|pred_layer)\.",
        r"^(vocab_transform|vocab_layer_norm|vocab_projector|sop_classifier|sequence_summary)\.",
        r"^(head\.|decoder\.(bias|weight)$|classifier\.|pre_classifier\.|qa_outputs\.)",
        r"(^|\.)pooler\.",
    ),
    "decoder": (),
}
_FLOATS = ("F64", "F32", "F16", "BF16")
# Prefixes that wrappers add to the names of all weights, and what to save instead.
_WRAPPERS = {
    "module.": "save the bare model: model.module.save_pretrained",
    "_orig_mod.": "save the model that was compiled: model._orig_mod.save_pretrained",
}


@dataclass(frozen=True)
class Weights:
    """Where a model's parameters come from.

    Attributes:
        parameters: their number, counting tied ones once, with the answer head of an encoder.
        from_files: how many of them are loaded from files.
        new: how many are initialised at random, by part of the model.
    """

    parameters: int
    from_files: int
    new: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Return the share of the parameters that come from the files."""
        return self.from_files / self.parameters

    def words(self) -> str:
        """Describe the share for a message."""
        # Rounded down, so that it never reads 100 % if any are missing.
        said = f"{math.floor(1000 * self.share) / 10:g} % of {self.parameters:,} parameters"
        parts = ", ".join(f"{part} ({count:,})" for part, count in self.new.items())
        return f"{said}; new: {parts}" if parts else said


def bare_model(config: Any) -> Any:
    """Build the model of a transformers config without allocating its weights."""
    with torch.device("meta"):
        return model_class(config)(config)


def matched_weights(
    model: Any, folder: Path, headers: Mapping[str, Header]
) -> tuple[Weights, list[str]]:
    """Find which weights of a bare model its files have, and what is wrong with them.

    transformers matches the names, as when it loads a model; no weights are loaded.
    """
    copies = _copies(model, headers)
    state = {
        name: torch.empty(header.shape, device="meta")
        for name, header in headers.items()
        if name not in copies
    }
    info = match_keys(model, state)
    errors = _type_errors(folder, model, headers) + key_errors(folder, model, info.to_dict())
    return _count(model, folder, info.missing_keys), errors


def _copies(model: Any, headers: Mapping[str, Header]) -> set[str]:
    """Return tied weights that files repeat under another name, as those of FLAN-T5 do.

    transformers ties equal ones when it loads them, but cannot compare them on the meta device,
    where each would count as separate parameters.
    """
    return {
        copy
        for copy, source in model.all_tied_weights_keys.items()
        if copy in headers
        and source in headers
        and headers[copy].shape == headers[source].shape
        and torch.equal(read_tensor(headers, copy), read_tensor(headers, source))
    }


def load_whole(auto: Any, folder: Path) -> Any:
    """Load a model with all of its weights, in fp32, by one of transformers' Auto classes.

    Raises:
        UserError: weights are missing, unexpected, of another shape or not finite.
    """
    where: dict[str, Any] = {
        "pretrained_model_name_or_path": folder,
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if whole_kind(folder):
        headers, errors = weight_headers(folder)
        raise_errors(errors)
        own = text_headers(headers)
        whole = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        config = text_config(whole, folder)
        auto = model_class(config)
        state = {name: read_tensor(own, name) for name in own}
        where = {"pretrained_model_name_or_path": None, "config": config, "state_dict": state}
    model, info = auto.from_pretrained(
        **where,
        # By default, transformers rounds weights to the type in config.json.
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    raise_errors(key_errors(folder, model, info))
    tensors = chain(model.named_parameters(), saved_buffers(model).items())
    raise_errors(finite_errors(folder, tensors))
    return model


def saved_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that belong to a module's saved state, such as a bias that BART adds to
    its logits; tables that a module computes itself are not among them."""
    state = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name in state}


def fixed_tables(model: nn.Module) -> set[str]:
    """Return the names of weights that are never trained and that a model computes if its files
    lack them: the sines of Marian's and Pegasus's positions."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if type(module).__name__.endswith("SinusoidalPositionalEmbedding")
    }


def finite_errors(where: Path, tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return an error if any of the named weights have NaN or infinity."""
    wrong = [name for name, tensor in tensors if not _is_finite(tensor)]
    if not wrong:
        return []
    return [
        f"{where}: {len(wrong)} of its tensors have NaN or infinity ({some(wrong)}); "
        "give a model whose training did not diverge"
    ]


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    # Propagates NaN, and reads the weights once.
    low, high = tensor.detach().aminmax()
    return bool(low.isfinite() & high.isfinite())


def key_errors(folder: Path, model: Any, info: Mapping[str, Any]) -> list[str]:
    """Return an error for what transformers' loading report has that the lists above do not."""
    kind = family(model.config)
    assert kind
    fixed = fixed_tables(model)
    missing = {
        name
        for name in info["missing_keys"]
        if name not in fixed and not _listed(name, _MAY_LACK[kind])
    }
    left_over = {
        name for name in info["unexpected_keys"] if not _listed(name, (*_BUFFERS, *_MAY_HOLD[kind]))
    }
    shapes = [
        f"{name} ({tuple(found)} for {tuple(wanted)})"
        for name, found, wanted in info["mismatched_keys"]
    ]
    said = [
        f"{len(names)} {'is' if len(names) == 1 else 'are'} {what} ({some(names)})"
        for names, what in (
            (missing, "missing"),
            (left_over, "unexpected"),
            (shapes, "of another shape"),
        )
        if names
    ]
    if not said:
        return []
    return [
        f"{folder}: its weights are not those of the {model.config.model_type!r} model of its "
        f"config.json: {', '.join(said)}; {_reason(missing, left_over, bool(shapes))}"
    ]


def _listed(name: str, patterns: tuple[str, ...]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _reason(missing: set[str], left_over: set[str], shapes: bool) -> str:
    """State the likely reason, and what to do."""
    if any(re.search(r"\.lora_|\.base_layer\.|^base_model\.model\.", name) for name in left_over):
        return "an adapter is not merged into them: save model.merge_and_unload().save_pretrained"
    begin = {f"{name.partition('.')[0]}." for name in left_over}
    if len(begin) == 1 and any(
        name.split(".", cut)[-1] in missing for name in left_over for cut in (1, 2)
    ):
        (prefix,) = begin
        inner = f"save the inner model: model.{prefix}save_pretrained"
        return f"the name of each begins with {prefix!r}: {_WRAPPERS.get(prefix, inner)}"
    if shapes or not (missing and left_over):
        return "config.json is of a model of another size, or the files are of several models"
    return "config.json and weights are of different models: give both as they were saved together"


def _type_errors(folder: Path, model: Any, headers: Mapping[str, Header]) -> list[str]:
    """Return an error if weights are not floating-point numbers that training can start from."""
    if getattr(model.config, "quantization_config", None):
        kinds = ["quantization_config in config.json"]
    else:
        whole = {n for n, t in model.state_dict().items() if not t.is_floating_point()}
        kinds = sorted(
            {
                header.dtype
                for name, header in headers.items()
                if header.dtype not in _FLOATS and name not in whole and not _listed(name, _BUFFERS)
            }
        )
    if not kinds:
        return []
    return [
        f"{folder}: its weights are quantised ({', '.join(kinds)}), which cannot be trained; "
        "give the model in fp32, bf16 or fp16"
    ]


def _count(model: Any, folder: Path, missing: set[str]) -> Weights:
    """Count the parameters that the files have, and the new ones; tied ones count once."""
    own = {name: parameter.numel() for name, parameter in model.named_parameters()}
    lacking = sum(own.get(name, 0) for name in missing - fixed_tables(model))
    head = head_size(model.config.hidden_size) if family(model.config) == "encoder" else 0
    new = {"a pooler that is not used": lacking} if lacking else {}
    if head and not (folder / ANSWER_HEAD).is_file():
        new["the answer head"] = head
    total = sum(own.values()) + head
    return Weights(total, total - sum(new.values()), new)


def head_shapes(width: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights of an encoder's answer head, by name."""
    return {
        "head.0.weight": (width, 3 * width),
        "head.0.bias": (width,),
        "score.weight": (1, width),
        "score.bias": (1,),
    }


def head_size(width: int) -> int:
    """Return the number of parameters of an encoder's answer head."""
    return sum(torch.Size(shape).numel() for shape in head_shapes(width).values())


def head_errors(folder: Path, width: int) -> list[str]:
    """Return what is wrong with the answer head in an encoder's folder; an encoder that was never
    trained by this package may have none."""
    path = folder / ANSWER_HEAD
    if not path.is_file():
        if not (folder / SETTINGS).is_file():
            return []
        return [
            f"{folder} is a trained encoder without its {ANSWER_HEAD}; copy the whole folder again"
        ]
    headers, errors = tensor_headers([path])
    found = {name: header.shape for name, header in headers.items()}
    if not errors and found != head_shapes(width):
        errors.append(
            f"{path} is not the answer head of this encoder: it must have {head_shapes(width)}, "
            f"but has {found}; copy the whole folder again"
        )
    return errors
