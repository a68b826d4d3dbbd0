"""The language model inside a model that reads pictures or sounds too (Gemma 3, Mistral 3, …).

It alone is loaded, under the names of its weights in a language model of its own kind, so that a
teacher or student saved from it is a plain language model.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knife.models.files import Header, weight_headers

# Names of its weights in a whole model's files: as transformers saves them, and as it once did.
_INNER = re.compile(r"^(model\.language_model\.|language_model\.model\.|model\.text_model\.)")
_HEAD = re.compile(r"^(language_model\.)?lm_head\.")


def text_config(config: Any, folder: Path) -> Any:
    """Return the config of the language model of the whole model in a folder, if transformers has a
    class for that alone, or else the config itself."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    part = getattr(config, "text_config", None)
    if config.is_encoder_decoder or part is None:
        return config
    if getattr(part, "model_type", None) not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return config
    part.tie_word_embeddings = _tied(folder)
    return part


def _tied(folder: Path) -> bool:
    """Return whether the language model's head is its embeddings: as config.json says of the whole
    model or of its text part, or else whether there is no head in its files. Classes of whole
    models have defaults of their own."""
    values = json.loads((folder / "config.json").read_bytes())
    for stated in (values, values.get("text_config") or {}):
        if isinstance(tied := stated.get("tie_word_embeddings"), bool):
            return tied
    return not any(_HEAD.match(name) for name in weight_headers(folder)[0])


def whole_kind(folder: Path) -> str | None:
    """Return the type of a model that has a language model inside; None for any other."""
    values = json.loads((folder / "config.json").read_bytes())
    if values.get("is_encoder_decoder") or not isinstance(values.get("text_config"), dict):
        return None
    return str(values.get("model_type"))


def text_name(name: str) -> str | None:
    """Return the name that a weight of a whole model has in its language model alone; None if it
    belongs to another part."""
    if _HEAD.match(name):
        return name.removeprefix("language_model.")
    return _INNER.sub("model.", name) if _INNER.match(name) else None


def text_headers(headers: Mapping[str, Header]) -> dict[str, Header]:
    """Return the headers of the language model's weights in a whole model's files."""
    return {own: header for name, header in headers.items() if (own := text_name(name))}
