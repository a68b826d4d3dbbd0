"""Checks for scale settings that a model, or this machine, does not support."""

import shutil
from typing import Any

from knife.compat.torch import compilers
from knife.compat.transformers import supports_attention
from knife.config.scale import Scale
from knife.models.families import family, model_class, reads_twice
from knife.plan.needs import on_gpu
from knife.plan.sources import KnownModel


def scale_errors(
    scale: Scale, models: dict[str, KnownModel | None], *, elsewhere: bool
) -> list[str]:
    """Return errors for attention, gradient checkpointing and compilation; models by config key.

    `elsewhere` leaves out checks that depend on the machine.
    """
    errors = _compile_errors(scale, elsewhere=elsewhere)
    for key, model in models.items():
        if model and reads_twice(model.config):
            errors += _reads_twice_errors(scale, key, model.config.model_type)
    if not (scale.attention or scale.gradient_checkpointing):
        return errors
    for key, model in models.items():
        if model:
            kind = model_class(model.config)
            errors += _attention_errors(scale, key, model.config, kind, elsewhere=elsewhere)
            if scale.gradient_checkpointing and not kind.supports_gradient_checkpointing:
                errors.append(
                    f"scale.gradient_checkpointing: {key} is a {kind.__name__}, which transformers "
                    "cannot checkpoint; set it to false"
                )
    return errors


def _reads_twice_errors(scale: Scale, key: str, kind: str) -> list[str]:
    """Return errors for what two readings of a text do not go with: states are put into layers,
    which neither recomputed nor compiled layers see, and a batch without rationales has one reading
    where another worker's has two."""
    settings = {
        "scale.zero_stage": (scale.zero_stage == 3, "3", "2"),
        "scale.gradient_checkpointing": (scale.gradient_checkpointing, "true", "false"),
        "scale.compile": (scale.compile, "true", "false"),
    }
    return [
        f"{name}: {value} does not go with {key}, a {kind!r} model, which reads a rationale and an "
        f"answer one after the other; set it to {other}"
        for name, (is_set, value, other) in settings.items()
        if is_set
    ]


def _attention_errors(
    scale: Scale, key: str, config: Any, kind: Any, *, elsewhere: bool
) -> list[str]:
    where = f"scale.attention: {scale.attention}"
    if scale.attention == "sdpa" and not supports_attention(kind, "sdpa"):
        return [f"{where} is not supported by {kind.__name__} ({key}); use eager or null"]
    if scale.attention == "flex_attention":
        if family(config) != "decoder" or not supports_attention(kind, "flex_attention"):
            return [f"{where} is not supported by {kind.__name__} ({key}); use sdpa, eager or null"]
        if not on_gpu(scale):
            return [f"{where} trains only on a GPU; set scale.gpus_per_worker=1, or use sdpa"]
        return []
    if scale.attention != "flash_attention_2":
        return []
    if not supports_attention(kind, "flash_attention_2"):
        return [f"{where} is not supported by {kind.__name__} ({key}); use sdpa, eager or null"]
    if family(config) != "encoder":
        return [
            f"{where} does not support the mask that keeps choices apart in {key} "
            f"({kind.__name__}); use sdpa, eager or null"
        ]
    errors = []
    if scale.precision != "bf16":
        errors.append(f"{where} computes only in bf16, but scale.precision is {scale.precision}")
    if not on_gpu(scale):
        errors.append(f"{where} needs a GPU, but workers have none; set scale.gpus_per_worker=1")
    elif not elsewhere and not _has_flash_attention():
        errors.append(f"{where} needs the package flash-attn, which is not installed here")
    return errors


def _has_flash_attention() -> bool:
    from transformers.utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())


def _compile_errors(scale: Scale, *, elsewhere: bool) -> list[str]:
    if not scale.compile:
        return []
    if not elsewhere and not on_gpu(scale) and not any(map(shutil.which, compilers())):
        return [
            "scale.compile: needs a C++ compiler to compile for a CPU, but g++ is not found here; "
            "install it, name another in the variable CXX, or set scale.compile=false"
        ]
    return []
