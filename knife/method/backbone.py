"""The small interface behind which every model works, and how one is loaded.

Shapes: B examples, L tokens, I task-input tokens, C choices, T tokens a choice, H width; V is the
vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from knife.data.batches import Batch
from knife.data.tokens import answer_start, closes
from knife.errors import UserError
from knife.families import ROTARY, TABLE, Family, family
from knife.method.model_files import AGAIN
from knife.method.positions import positions


@dataclass(frozen=True)
class Output:
    """What a backbone says about a batch.

    Attributes:
        scores_BC: score of each choice; the most negative number where there is no choice.
        input_states: by layer (from 1) of what reads `I`, the states at task-input positions,
            (B, I, H).
        input_mask_BI: 1 at task-input tokens, 0 at padding and, where `[I ; R]` was read, at
            rationale tokens that share a column with another example's task input.
        output_states_BCTH: answer-side states of each choice.
        output_mask_BCT: where they stand.
    """

    scores_BC: Tensor
    input_states: dict[int, Tensor]
    input_mask_BI: Tensor
    output_states_BCTH: Tensor
    output_mask_BCT: Tensor


class Backbone(Protocol):
    """A model that scores choices, as teacher (`[I ; R]`) and as student (`[I]`).

    Every backbone is a `torch.nn.Module`. With its bottleneck, nothing on the answer's side sees a
    rationale's states, so that the answer hangs on the task-input states alone (Chan et al. 2022,
    arXiv 2212.09721, section 3).

    Attributes:
        depth: number of layers of what reads the task input: the encoder, or a decoder alone.
        width: width of their states.
        output_width: width of the answer-side states.
    """

    depth: int
    width: int
    output_width: int

    def __call__(self, batch: Batch, layers: Sequence[int] = ()) -> Output:
        """Score the choices of a batch, the task input encoded once; keep states of `layers`."""

    def write(
        self, batch: Batch, most: int, closings: int = 1, *, together: bool = False
    ) -> list[list[int] | None]:
        """Text for each example, greedily, as tokens: up to the closing token of its last part,
        or to `most` tokens; None where the model's outputs were not finite. An encoder-only
        backbone has no such method: see `can_write`."""

    def save(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write a gathered state dict so that `AutoModel…` and `load_backbone` read it back."""


def task_input_states(
    hidden: Sequence[Tensor], last_BLH: Tensor, batch: Batch, layers: Sequence[int]
) -> tuple[dict[int, Tensor], Tensor]:
    """Cut the states of `layers` down to the columns of task-input tokens, with their mask."""
    columns = int(batch.input_mask_BL.sum(1).max())
    depth = len(hidden) - 1
    states = {}
    for layer in layers:
        states_BLH = last_BLH if layer == depth or not hidden else hidden[layer]
        states[layer] = states_BLH[:, :columns]
    return states, batch.input_mask_BL[:, :columns]


def masked_scores(scores_BC: Tensor, batch: Batch) -> Tensor:
    """Scores with the most negative number where an example has no such choice."""
    return scores_BC.masked_fill(~batch.choice_exists_BC, torch.finfo(scores_BC.dtype).min)


def choice_scores(logits_BNV: Tensor, batch: Batch) -> Tensor:
    """Mean log-probability of each choice's tokens, the closing one included: (B, C).

    `logits_BNV` stand at all choices' tokens, N = C x T, and say what each token is.
    """
    losses_BN = nn.functional.cross_entropy(
        logits_BNV.float().transpose(1, 2), batch.choice_ids_BCT.flatten(1), reduction="none"
    )
    mask_BCT = batch.choice_mask_BCT
    sums_BC = (losses_BN.view(mask_BCT.shape) * mask_BCT).sum(-1)
    return masked_scores(-sums_BC / mask_BCT.sum(-1).clamp(min=1), batch)


def model_config(folder: Path, key: str) -> Any:
    """The transformers config of a model folder; `key` is the config key that named it.

    Raises:
        UserError: the folder is no model that a backbone can be made of.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise UserError(f"{key}: {folder} has no config.json; give a folder with a saved model")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        # What transformers and its dataclasses raise is of many kinds.
        words = f"{folder}/config.json is not a known model: {' '.join(str(error).split())[:300]}"
        raise UserError(f"{key}: {words}") from error
    if family(config) is None:
        raise UserError(
            f"{key}: {config.model_type!r} models are not supported; expected an encoder-decoder "
            "(T5 family), an encoder (BERT family) or a decoder-only model "
            f"({', '.join((*TABLE, *ROTARY))})"
        )
    return config


def can_write(config: Any) -> bool:
    """Whether models of a transformers config write text; an encoder alone does not."""
    return family(config) != "encoder"


def load_tokenizer(folder: Path, key: str) -> Any:
    """The tokenizer of a model folder.

    Raises:
        UserError: there is none, it cannot say where in a text its tokens stand, or it does not
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
        # What the tokenizers' own code raises is a bare Exception.
        words = f"the tokenizer in {folder} cannot be read: {' '.join(str(error).split())[:300]}"
        raise UserError(f"{key}: {words}; {AGAIN}") from error
    if not tokenizer.is_fast:
        raise UserError(f"{key}: the tokenizer in {folder} is a slow one; save a tokenizer.json")
    decoder = family(model_config(folder, key)) == "decoder"
    if decoder == closes(tokenizer):
        fault = "ends every text, which a decoder-only model" if decoder else "ends no text, which"
        raise UserError(
            f"{key}: the tokenizer in {folder} {fault} must not: "
            "give the one that the model was trained with"
        )
    if decoder and tokenizer.eos_token_id is None:
        raise UserError(
            f"{key}: the tokenizer in {folder} has no eos_token, which ends an answer of a "
            "decoder-only model; name one in its tokenizer_config.json"
        )
    return tokenizer


def room_for_choices(folder: Path, tokenizer: Any) -> int | None:
    """How many tokens a task input and an answer may have; None for all but decoder-only models."""
    config = model_config(folder, "model")
    known = positions(config) if family(config) == "decoder" else None
    return None if known is None else known - len(answer_start(tokenizer))


def load_backbone(folder: Path, *, bottleneck: bool = True, seed: int = 0) -> Any:
    """Load a backbone from a model folder; new weights (an answer head) come from `seed`.

    Safetensors are the only weights that are read, and no code of a model's author is run.
    The result is a `Backbone`; its type is Any because it is a module as well.
    """
    from knife.method.decoder_only import DecoderOnly
    from knife.method.encoder_decoder import EncoderDecoder
    from knife.method.encoder_only import EncoderOnly

    kinds: dict[Family | None, Any] = {
        "encoder-decoder": EncoderDecoder,
        "encoder": EncoderOnly,
        "decoder": DecoderOnly,
    }
    kind = kinds[family(model_config(folder, "model"))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone: nn.Module = kind(folder, bottleneck=bottleneck)
    return backbone.float()
