"""Loads a backbone of the class that suits a model folder's config."""

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from knife.models.base import Backbone
from knife.models.choice_rows import ChoiceRows
from knife.models.decoder_only import DecoderOnly
from knife.models.encoder_decoder import EncoderDecoder
from knife.models.encoder_only import EncoderOnly
from knife.models.families import ROWS, Family, family, reads_twice
from knife.models.tokenizer import model_config
from knife.models.two_readings import TwoReadings

_KINDS: dict[Family | None, type[Backbone]] = {
    "encoder-decoder": EncoderDecoder,
    "encoder": EncoderOnly,
    "decoder": DecoderOnly,
}


def load_backbone(folder: Path, *, bottleneck: bool = True, seed: int = 0) -> Backbone:
    """Load a backbone from a model folder; new weights (an answer head) are drawn from `seed`.

    Only safetensors weights are read, and no code from the model's author is run.
    """
    config = model_config(folder, "model")
    kind = ChoiceRows if config.model_type in ROWS else _KINDS[family(config)]
    if reads_twice(config):
        kind = TwoReadings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = kind(folder, bottleneck=bottleneck)
    return backbone.float()


def transformers_model(backbone: nn.Module) -> PreTrainedModel:
    """Return the transformers model inside a backbone."""
    (model,) = [m for m in backbone.children() if isinstance(m, PreTrainedModel)]
    return model
