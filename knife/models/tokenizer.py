"""The config and the tokenizer of a model folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knife.core.errors import UserError
from knife.data.tokens import answer_opening, answer_start, closes
from knife.models.families import (
    ONE_SEQUENCE,
    REFUSED,
    ROWS,
    UNCLOSED,
    family,
)
from knife.models.files import AGAIN
from knife.models.positions import decoder_positions, positions
from knife.models.text_part import text_config

# The files that a tokenizer may be read from, by type of tokenizer.
_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "*.model")
_AS_JSON = (
    "save the tokenizer once as a tokenizer.json: load the original by its own class (such as "
    "T5Tokenizer), and call its save_pretrained"
)


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
    config = text_config(config, folder)
    if family(config) is None:
        why = f": {REFUSED[config.model_type]}" if config.model_type in REFUSED else ""
        raise UserError(
            f"{key}: {config.model_type!r} models are not supported{why}; expected an "
            f"encoder-decoder ({', '.join((*ONE_SEQUENCE, *ROWS))}), or an encoder or decoder-only "
            "model that transformers has a class for"
        )
    return config


def can_generate(config: Any) -> bool:
    """Whether models of a transformers config generate text.

    Encoder-only models do not. mBART ends a text with a token of its language, behind the one that
    ends a text in other models.
    """
    return family(config) != "encoder" and config.model_type != "mbart"


def load_tokenizer(folder: Path, key: str) -> Any:
    """Load the tokenizer of a model folder.

    Raises:
        UserError: there is none, it cannot return the offsets of tokens in a text, or it does not
            end texts as the model's family does.
    """
    from transformers import AutoTokenizer

    found = sorted({path.name for name in _FILES for path in folder.glob(name)})
    if not found:
        raise UserError(
            f"{key}: {folder} has a model but no tokenizer (none of {', '.join(_FILES)}); "
            "save the tokenizer into the same folder"
        )
    if found == ["tokenizer.model"]:
        raise UserError(
            f"{key}: {folder} has tokenizer.model but no tokenizer_config.json, which says how to "
            f"read it; {_AS_JSON}"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        # The tokenizers library raises a bare Exception.
        words = f"the tokenizer in {folder} cannot be read: {' '.join(str(error).split())[:600]}"
        todo = AGAIN if "tokenizer.json" in found else f"it has {', '.join(found)}; {_AS_JSON}"
        raise UserError(f"{key}: {words}; {todo}") from error
    reads = set(tokenizer.vocab_files_names.values())
    if reads.isdisjoint(found):
        raise UserError(
            f"{key}: the tokenizer in {folder} has no vocabulary: transformers reads that of a "
            f"{type(tokenizer).__name__} from {' or '.join(sorted(reads))}, but there is "
            f"{', '.join(found)}; {_AS_JSON}"
        )
    if not tokenizer.is_fast:
        raise UserError(f"{key}: the tokenizer in {folder} is a slow one; {_AS_JSON}")
    config = model_config(folder, key)
    decoder = family(config) == "decoder"
    if decoder == closes(tokenizer) and config.model_type not in UNCLOSED:
        what = (
            "ends every text, which a decoder-only model must not"
            if decoder
            else "ends no text with a special token, by which this model ends an answer"
        )
        raise UserError(
            f"{key}: the tokenizer in {folder} {what}: give the one that the model was trained with"
        )
    if tokenizer.eos_token_id is None and (decoder or config.model_type in UNCLOSED):
        raise UserError(
            f"{key}: the tokenizer in {folder} has no eos_token, which ends an answer of this "
            "model; name one in its tokenizer_config.json"
        )
    return tokenizer


@dataclass(frozen=True, slots=True)
class Room:
    """How many tokens an answer may have, in a decoder-only model together with the task input.

    Attributes:
        tokens: their number.
        with_input: whether the task input counts.
    """

    tokens: int
    with_input: bool


def room_for_choices(folder: Path, tokenizer: Any) -> Room | None:
    """Return the room for an answer in a model with a decoder of limited positions, else None."""
    config = model_config(folder, "model")
    kind = family(config)
    known = positions(config) if kind == "decoder" else decoder_positions(config)
    if known is None:
        return None
    before = answer_start(tokenizer) if kind == "decoder" else answer_opening(tokenizer)
    return Room(known - len(before), kind == "decoder")
