"""Checks before any training that a model folder is complete and consistent."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from safetensors import safe_open
from tokenizers import Tokenizer

from knife.core.errors import UserError, raise_errors
from knife.models.families import ONE_SEQUENCE, UNCLOSED, decoder_config, family
from knife.models.files import Header, adapter_errors, damage, some, weight_headers
from knife.models.positions import positions
from knife.models.text_part import text_headers, whole_kind
from knife.models.tokenizer import load_tokenizer, model_config
from knife.models.weights import Weights, bare_model, finite_errors, head_errors, matched_weights

# Lower case and plain letters, which no setting of a tokenizer changes.
_PROBE = "question: which of these does an animal eat in winter, and why not in summer?"


@dataclass(frozen=True, kw_only=True)
class CheckedModel:
    """A model folder that passed all checks.

    Attributes:
        config: its transformers config.
        tokenizer: its tokenizer.
        weights: where its parameters come from.
        positions: how many tokens it can read; None if it only has relative positions.
        whole: the type of the model whose language model it is; None if it is a whole one.
    """

    config: Any
    tokenizer: Any
    weights: Weights
    positions: int | None
    whole: str | None


def check_model(folder: Path, key: str) -> CheckedModel:
    """Check all files of a model folder; `key` is the config key that named it.

    Raises:
        UserError: with everything that is wrong with them.
    """
    raise_errors(f"{key}: {message}" for message in [*damage(folder), *adapter_errors(folder)])
    config = model_config(folder, key)
    headers, found = weight_headers(folder)
    raise_errors(f"{key}: {message}" for message in found)
    tokenizer = load_tokenizer(folder, key)
    try:
        model = bare_model(config)
        known = positions(config)
    except Exception as error:
        # A model's own code may raise anything for inconsistent numbers.
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{key}: no model can be built from {folder / 'config.json'}: {first}; "
            "give the one that the model was saved with"
        ) from error
    whole = whole_kind(folder)
    own = text_headers(headers) if whole else headers
    if whole and not own:
        raise UserError(
            f"{key}: {folder} is a {whole!r} model, of which the language model alone would be "
            "used, but none of its weights is named as one of a language model inside "
            "(model.language_model.…); give that alone, saved in a folder of its own"
        )
    weights, errors = matched_weights(model, folder, own)
    errors += _untied_errors(folder, headers) if config.model_type in ONE_SEQUENCE else []
    if family(config) == "encoder":
        errors += head_errors(folder, config.hidden_size)
    rows = model.get_input_embeddings().weight.shape[0]
    errors += _tokenizer_errors(folder, config, tokenizer)
    errors = errors or [*_token_errors(folder, config, tokenizer, rows), *_finite(headers)]
    raise_errors(f"{key}: {message}" for message in errors)
    return CheckedModel(
        config=config, tokenizer=tokenizer, weights=weights, positions=known, whole=whole
    )


def _tokenizer_errors(folder: Path, config: Any, tokenizer: Any) -> list[str]:
    """Return an error if transformers reads a tokenizer.json in its own way: for some types of
    models it takes the vocabulary, and cuts texts as the type's first tokenizer did."""
    if not (folder / "tokenizer.json").is_file():
        return []
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole.no_truncation()
    whole.no_padding()
    stored = whole.encode(_PROBE, add_special_tokens=False).ids
    read = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
    # Settings beside that file may put a space before the first word.
    rest = max(1, len(stored) // 2)
    if read[-rest:] == stored[-rest:]:
        return []
    return [
        f"{folder}: since its config.json says {config.model_type!r}, transformers reads its "
        f"tokenizer.json as a {type(tokenizer).__name__}, which makes other tokens of a text than "
        "the file does; give a model whose tokenizer was made for models of this type"
    ]


def _token_errors(folder: Path, config: Any, tokenizer: Any, rows: int) -> list[str]:
    """Return errors for tokens without an embedding, and of special tokens that do not fit."""
    errors = []
    outside = [token for token, number in tokenizer.get_vocab().items() if number >= rows]
    if outside:
        errors.append(
            f"{folder}: {len(outside):,} tokens of its tokenizer ({some(outside)}) are beyond "
            f"the model's table of {rows:,} embeddings; save the model after "
            "model.resize_token_embeddings(len(tokenizer)), or with the tokenizer it was trained "
            "with"
        )
    if family(config) != "encoder-decoder":
        return errors
    decoder = decoder_config(config)
    # T5Gemma starts from the token that begins texts.
    start = "bos_token_id" if config.model_type in UNCLOSED else "decoder_start_token_id"
    if getattr(decoder, start, None) is None:
        errors.append(
            f"{folder}: config.json has no {start}, from which a model of this "
            "family generates; add it (in T5 it is the pad_token_id)"
        )
    if decoder.pad_token_id is None:
        errors.append(f"{folder}: config.json has no pad_token_id, with which choices are padded")
    if getattr(config, "share_encoder_decoder_embeddings", True) is False:
        errors.append(
            f"{folder}: its decoder has other tokens than its encoder, but choices are part of "
            "what both read; give a model with one vocabulary"
        )
    dropped = [n for n in ("encoder_layerdrop", "decoder_layerdrop") if getattr(config, n, 0)]
    if dropped:
        errors.append(
            f"{folder}: config.json has {' and '.join(dropped)}, but layers that are left out at "
            "random have no gradient; set it to 0"
        )
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if tokenizer.eos_token_id not in ends:
        errors.append(
            f"{folder}: eos_token_id is {config.eos_token_id} in config.json but "
            f"{tokenizer.eos_token_id} in the tokenizer; give model and tokenizer that belong "
            "together"
        )
    return errors


def _untied_errors(folder: Path, headers: Mapping[str, Header]) -> list[str]:
    """Return an error if a T5 that should have its own output head lacks it: transformers would tie
    the head to the embeddings, as in older T5 models, whatever config.json says."""
    values = json.loads((folder / "config.json").read_bytes())
    if values.get("tie_word_embeddings", True) or "lm_head.weight" in headers:
        return []
    return [
        f"{folder}: 1 of its weights is missing (lm_head.weight), which its config.json does not "
        "tie to the embeddings; give config.json and weights as they were saved together"
    ]


def _finite(headers: Mapping[str, Header]) -> list[str]:
    """Return an error for each file with NaN or infinite weights; every weight is read once."""
    errors = []
    by_file = sorted(headers.items(), key=lambda item: item[1].file)
    for path, items in groupby(by_file, key=lambda item: item[1].file):
        with safe_open(path, framework="pt") as file:
            errors += finite_errors(path, ((name, file.get_tensor(name)) for name, _ in items))
    return errors
