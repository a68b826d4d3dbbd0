"""Loading a backbone: which class a model folder's config asks for."""

from pathlib import Path

import torch

from knife.models.base import Backbone
from knife.models.decoder_only import DecoderOnly
from knife.models.encoder_decoder import EncoderDecoder
from knife.models.encoder_only import EncoderOnly
from knife.models.families import Family, family
from knife.models.tokenizer import model_config

_KINDS: dict[Family | None, type[Backbone]] = {
    "encoder-decoder": EncoderDecoder,
    "encoder": EncoderOnly,
    "decoder": DecoderOnly,
}


def load_backbone(folder: Path, *, bottleneck: bool = True, seed: int = 0) -> Backbone:
    """Load a backbone from a model folder; new weights (an answer head) come from `seed`.

    Safetensors are the only weights that are read, and no code of a model's author is run.
    """
    kind = _KINDS[family(model_config(folder, "model"))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = kind(folder, bottleneck=bottleneck)
    return backbone.float()
