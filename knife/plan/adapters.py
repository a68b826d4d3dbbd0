"""Checks for low-rank adapters that a model, or a setting of scale, does not support."""

from functools import partial
from importlib.metadata import version
from importlib.util import find_spec

from knife.config.run import RunConfig
from knife.models.lora import adapters_size
from knife.models.self_test import adapters_test
from knife.plan.prepared import Prepared
from knife.plan.sources import KnownModel


def adapter_errors(
    config: RunConfig, models: dict[str, KnownModel | None], prepared: Prepared
) -> list[str]:
    """Return errors for `teacher.lora` and `student.lora`; models by these names."""
    errors = []
    for name, model in models.items():
        lora = (config.teacher if name == "teacher" else config.student).lora
        if model is None or lora is None:
            continue
        if config.scale.zero_stage == 3:
            errors.append(
                f"scale.zero_stage: 3 does not go with {name}.lora, whose adapters are merged into "
                "whole weights; set it to 2"
            )
        if find_spec("peft") is None:
            errors.append(
                f"{name}.lora: needs the package peft, which is not installed here: "
                "pip install 'knife[lora]'"
            )
            continue
        try:
            adapters_size(model.config, lora)
        except ValueError as error:
            errors.append(f"{name}.lora: {error}")
            continue
        failures = prepared.failures(
            [model.values, lora.model_dump(), version("peft")],
            partial(adapters_test, model.config, model.tokenizer, lora),
        )
        errors += [
            f"{name}.lora: {model.config.model_type!r} models cannot have such adapters: {failure}"
            for failure in failures
        ]
    return errors
