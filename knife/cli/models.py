"""What a model is to this package: its kind and size, how it is read, and whether that is right."""

import time

from knife.config.run import Training
from knife.config.scale import Scale
from knife.core.errors import raise_errors
from knife.core.words import size
from knife.models.check import check_model
from knife.models.families import reader_config, way
from knife.models.quiet import quiet
from knife.models.self_test import self_test
from knife.models.source import EMBEDDED, find_model
from knife.plan.memory import Lengths, training_need
from knife.plan.model_size import ModelSize, model_size
from knife.plan.needs import machine_memory

# What the estimate is for: four short answers, in the batches of a config that says nothing.
_CHOICES, _CHOICE = 4, 8


def about(name: str, limit: int) -> list[str]:
    """Return lines on a model, whose texts have up to `limit` tokens.

    Raises:
        UserError: with everything that is wrong with its files, or what it fails in.
    """
    source = find_model(name, "MODEL")
    quiet()
    found = check_model(source.folder, "MODEL")
    text = reader_config(found.config)
    began = time.monotonic()
    failures = self_test(found.config, found.tokenizer, limit)
    seconds = time.monotonic() - began
    raise_errors(
        f"MODEL: {found.config.model_type!r} models cannot be used: {each}" for each in failures
    )
    positions = f"{found.positions:,}" if found.positions else "any number (relative positions)"
    inside = f", the language model of a {found.whole}" if found.whole else ""
    lines = [
        f"model:      {source.identity if source.revision else source.folder}",
        f"family:     {found.config.model_type}{inside}",
        f"read as:    {way(found.config)}",
        f"size:       {found.weights.parameters:,} parameters, {text.num_hidden_layers} layers of "
        f"width {text.hidden_size}, {text.vocab_size:,} tokens",
        f"weights:    {found.weights.words()}",
        f"positions:  {positions}",
        f"self-test:  passed with texts of up to {limit} tokens, in {seconds:.1f} s",
    ]
    own = model_size(found.config, source.folder)
    if name in EMBEDDED:
        lines[-1] += " (knife run leaves it out for the package's own models)"
    return [*lines, f"training:   {_training(own, limit) if own else 'memory unknown'}"]


def _training(own: ModelSize, limit: int) -> str:
    training, scale = Training(), Scale()
    lengths = Lengths(limit, limit, _CHOICES, _CHOICE, 0, 0, 0, 0)
    need = training_need(own, training, scale, lengths, rationale=True)
    return (
        f"about {size(need.peak)} for a worker that trains a teacher (batch_size "
        f"{training.batch_size}, texts of {limit} tokens, {_CHOICES} choices of {_CHOICE}, "
        f"{scale.precision}); this machine has {size(machine_memory())}"
    )
