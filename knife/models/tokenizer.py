"""The config and the tokenizer of a model folder."""

from pathlib import Path
from typing import Any

from knife.core.errors import UserError
from knife.data.tokens import answer_start, closes
from knife.models.families import family
from knife.models.files import AGAIN
from knife.models.positions import positions


def model_config(folder: Path, key: str) -> Any:
    """Load the transformers config of a model folder; `key` is the config key that named it.

    Raises:
        UserError: the folder has no model that a backbone supports.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise UserError(f"{key}: {folder} has no config.json; give a folder with a saved model")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        # transformers and its dataclasses raise many kinds of exceptions.
        words = f"{folder}/config.json is not a known model: {' '.join(str(error).split())[:300]}"
        raise UserError(f"{key}: {words}") from error
    if family(config) is None:
        raise UserError(
            f"{key}: {config.model_type!r} models are not supported; expected an encoder-decoder "
            "(T5 family), or an encoder or decoder-only model that transformers has a class for"
        )
    return config


def can_generate(config: Any) -> bool:
    """Whether models of a transformers config generate text; encoder-only models do not."""
    return family(config) != "encoder"


def load_tokenizer(folder: Path, key: str) -> Any:
    """Load the tokenizer of a model folder.

    Raises:
        UserError: there is none, it cannot return the offsets of tokens in a text, or it does not
            end texts as the model's family does.
    """
    from transformers import AutoTokenizer

    names = ("tokenizer.json", "tokenizer_config.json", "spiece.model", "vocab.txt", "vocab.json")
    if not any((folder / name).is_file() for name in names):
        raise UserError(
            f"{key}: {folder} has a model but no tokenizer (none of {', '.join(names)}); "
            "save the tokenizer into the same folder"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        # The tokenizers library raises a bare Exception.
        words = f"the tokenizer in {folder} cannot be read: {' '.join(str(error).split())[:300]}"
        raise UserError(f"{key}: {words}; {AGAIN}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{key}: the tokenizer in {folder} is a slow one; save a tokenizer.json")
    decoder = family(model_config(folder, key)) == "decoder"
    if decoder == closes(tokenizer):
        what = "ends every text, which a decoder-only model" if decoder else "ends no text, which"
        raise UserError(
            f"{key}: the tokenizer in {folder} {what} must not: "
            "give the one that the model was trained with"
        )
    if decoder and tokenizer.eos_token_id is None:
        raise UserError(
            f"{key}: the tokenizer in {folder} has no eos_token, which ends an answer of a "
            "decoder-only model; name one in its tokenizer_config.json"
        )
    return tokenizer


def room_for_choices(folder: Path, tokenizer: Any) -> int | None:
    """Return how many tokens task input and answer may have together in a decoder-only model, else
    None."""
    config = model_config(folder, "model")
    known = positions(config) if family(config) == "decoder" else None
    return None if known is None else known - len(answer_start(tokenizer))
