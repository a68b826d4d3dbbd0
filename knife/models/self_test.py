"""Whether a kind of model computes what this package takes for granted, tried out on a small random
model of that kind.

A model's code decides that, and no list of models could be complete: some encoders mix tokens of
padding into a text, some decoders do not follow a mask or positions.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from knife.compat.transformers import save_model
from knife.config.lora import Lora
from knife.core.errors import UserError
from knife.data.batches import Batch, Rows, collate
from knife.data.example import Example
from knife.data.tokenizing import tokenize
from knife.data.tokens import answer_opening, answer_start
from knife.models.base import Backbone
from knife.models.families import TABLE, family, reads_twice
from knife.models.files import some
from knife.models.load import load_backbone
from knife.models.lora import add_adapters, layer_ends, merged
from knife.models.positions import positions
from knife.models.shrunk import shrunk_model
from knife.models.tokenizer import load_tokenizer, model_config
from knife.models.two_readings import TwoReadings

# Rounding makes a difference of up to 2e-5; of the families known to be wrong, the nearest differs
# by 7e-4.
_TOLERANCE = 1e-4
# Limits of texts below and above these are not tried.
_SHORTEST, _LONGEST = 128, 1024
# The size of random adapters, which change scores without making them extreme.
_ADAPTED = 0.05
# Positions for an answer.
_ROOM = 24
_EXAMPLES = (
    Example("1", "which animal can fly ?", ("the bird", "a fish", "dog"), 0, "birds have wings ."),
    Example("2", "is it very cold here in a long winter ?", ("yes", "no"), 0, None),
    Example("3", "what do cows eat ?", ("grass", "red stones"), 0, "a cow is big . " * _LONGEST),
)


def self_test(config: Any, tokenizer: Any, limit: int) -> list[str]:
    """Return what a kind of model does wrong with texts of up to `limit` tokens."""
    return _tried(config, tokenizer, limit, _Trial.failures)


def adapters_test(config: Any, tokenizer: Any, lora: Lora) -> list[str]:
    """Return what a kind of model that passes `self_test` does wrong with low-rank adapters.

    Raises:
        ValueError: as `add_adapters` does.
    """
    if lora.targets:
        # The small model has fewer layers than a target may number.
        lora = lora.model_copy(update={"targets": tuple(sorted(layer_ends(config, lora)))})
    return _tried(config, tokenizer, _SHORTEST, lambda trial: trial.adapter_failures(lora))


def _tried(
    config: Any, tokenizer: Any, limit: int, failures: Callable[["_Trial"], list[str]]
) -> list[str]:
    try:
        model = shrunk_model(config)
    except ValueError as error:
        return [f"no small model of its kind can be tried: {error}"]
    with tempfile.TemporaryDirectory(prefix="knife-self-test-") as name:
        folder = Path(name) / "model"
        save_model(model, folder, model.state_dict())
        tokenizer.save_pretrained(folder)
        try:
            own = load_tokenizer(folder, "model")
            return failures(_Trial(folder, own, _length(config, limit)))
        except UserError as error:
            return [each.replace(name, "a small model of its kind") for each in error.errors]
        except Exception as error:
            # A model's own code may raise anything.
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            return [f"a small model of its kind fails: {first}"]


def _length(config: Any, limit: int) -> int:
    """Return how many tokens are tried: at least as many as the questions here have."""
    known = positions(config)
    tried = max(_SHORTEST, min(limit, _LONGEST))
    return tried if known is None else min(tried, known - _ROOM)


class _Trial:
    """A small model with a few examples."""

    def __init__(self, folder: Path, tokenizer: Any, limit: int) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.tokens, _ = tokenize(_EXAMPLES, tokenizer, limit)
        self.pad = tokenizer.pad_token_id or 0
        self.backbone: Any = load_backbone(folder).eval()
        self.config = model_config(folder, "model")
        self.kind = family(self.config)

    def failures(self) -> list[str]:
        """Return a sentence for each thing that is wrong."""
        scores_BC = self._scores(self.backbone, rationale=True)
        if not scores_BC.isfinite().all():
            return ["its outputs are NaN or infinite"]
        found = [
            (self._padding(), "what it reads depends on padding and on other texts of a batch"),
            (self._plain(), "scores are not those of the model alone on one text"),
            (self._leak(), "the answer reads the rationale itself, and not the task input alone"),
            (self._reloaded(scores_BC), "scores change when it is saved and loaded again"),
        ]
        failed = [f"{what} (by {by:.0e})" for by, what in found if not by <= _TOLERANCE]
        if not self._moved() > _TOLERANCE:
            failed.append("a rationale does not change how it reads the task input")
        return failed + self._resting_failures()

    def adapter_failures(self, lora: Lora) -> list[str]:
        """Return a sentence for each thing that is wrong with trained adapters."""
        add_adapters(self.backbone, lora, 0)
        # Their dropout too.
        self.backbone.eval()
        failed = self._resting_failures()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            for name, parameter in self.backbone.named_parameters():
                if ".lora_" in name:
                    parameter.copy_(_ADAPTED * torch.randn_like(parameter))
        off = self._reloaded(self._scores(self.backbone, rationale=True))
        if not off <= _TOLERANCE:
            failed.append(f"scores change when its adapters are merged (by {off:.0e})")
        return failed

    def _resting_failures(self) -> list[str]:
        failed = []
        if resting := self._resting():
            failed.append(
                f"{len(resting)} of its weights have no gradient ({some(resting)}), and DeepSpeed "
                "would change them all the same"
            )
        return failed

    def _batch(self, *, rationale: bool, rows: Sequence[int] = range(len(_EXAMPLES))) -> Batch:
        return collate(self.tokens, Rows(list(rows), [1.0] * len(rows)), self.pad, rationale)

    @torch.no_grad()
    def _scores(self, backbone: Backbone, *, rationale: bool) -> Tensor:
        """Return the scores of all choices, one after another."""
        batch = self._batch(rationale=rationale)
        scores_BC: Tensor = backbone(batch).scores_BC
        return scores_BC[batch.choice_exists_BC]

    @torch.no_grad()
    def _padding(self) -> float:
        """Return how far scores, and states of the task input relative to their size, differ
        between an example alone and in a batch."""
        depth, worst = self.backbone.depth, 0.0
        for rationale in (True, False):
            batch = self._batch(rationale=rationale)
            whole = self.backbone(batch, [depth])
            for row in range(len(_EXAMPLES)):
                alone = self.backbone(self._batch(rationale=rationale, rows=[row]), [depth])
                scores_C = whole.scores_BC[row][batch.choice_exists_BC[row]]
                states_IH = whole.input_states[depth][row][whole.input_mask_BI[row].bool()]
                own_IH = alone.input_states[depth][0]
                size = float(own_IH.abs().mean())
                worst = max(
                    worst,
                    _distance(scores_C, alone.scores_BC[0]),
                    _distance(states_IH, own_IH) / size,
                )
        return worst

    @torch.no_grad()
    def _plain(self) -> float:
        """Return how far a student's scores are from the mean log-probability of each choice by the
        model itself; an encoder has no probabilities."""
        if self.kind == "encoder":
            return 0.0
        decoder = self.kind == "decoder"
        before = answer_start(self.tokenizer) if decoder else answer_opening(self.tokenizer)
        expected = []
        for example in self.tokens:
            for choice in example.choice_ids:
                wanted = torch.tensor(choice)
                if decoder:
                    text = torch.tensor([example.input_ids + before + choice])
                    logits = self.backbone.model(text).logits[0, -len(choice) - 1 : -1]
                else:
                    text = torch.tensor([example.input_ids])
                    labels = torch.tensor([before + choice])
                    logits = self.backbone.model(text, labels=labels).logits[0, -len(choice) :]
                chosen = logits.float().log_softmax(-1).gather(1, wanted[:, None])
                expected.append(chosen.mean())
        return _distance(self._scores(self.backbone, rationale=False), torch.stack(expected))

    def _leak(self) -> float:
        """Return how far the answer depends on a rationale's states: the gradient of the scores by
        those of an encoder, or the distance to readings that know none."""
        if self.kind == "decoder":
            # Two readings know none; a table of positions has others for the rationale there.
            if reads_twice(self.config) or self.config.model_type in TABLE:
                return 0.0
            twice = TwoReadings(self.folder).eval()
            scores = [self._scores(each, rationale=True) for each in (self.backbone, twice)]
            return _distance(*scores)
        kept: list[Tensor] = []
        backbone, batch = self.backbone, self._batch(rationale=True)
        reader = backbone.encoder if self.kind == "encoder" else backbone.model.get_encoder()
        handle = reader.register_forward_hook(lambda _m, _i, o: kept.append(o.last_hidden_state))
        scores_BC = backbone(batch).scores_BC
        handle.remove()
        (gradient_BLH,) = torch.autograd.grad(scores_BC[batch.choice_exists_BC].sum(), kept)
        of_rationale = gradient_BLH[(batch.mask_BL - batch.input_mask_BL).bool()]
        return float(of_rationale.abs().max())

    @torch.no_grad()
    def _moved(self) -> float:
        """Return how far a rationale moves the states of the task input."""
        depth = self.backbone.depth
        states = [
            self.backbone(self._batch(rationale=rationale, rows=[0]), [depth]).input_states[depth]
            for rationale in (True, False)
        ]
        return _distance(*states)

    def _resting(self) -> set[str]:
        """Return the names of trained weights without a gradient, of a teacher or of a student."""
        found: set[str] = set()
        for rationale in (True, False):
            batch = self._batch(rationale=rationale)
            self.backbone.zero_grad(set_to_none=True)
            self.backbone(batch).scores_BC[batch.choice_exists_BC].sum().backward()
            found |= {
                name
                for name, parameter in self.backbone.named_parameters()
                if parameter.requires_grad and parameter.grad is None
            }
        return found

    def _reloaded(self, scores_BC: Tensor) -> float:
        again = self.folder.with_name("again")
        state = self.backbone.state_dict()
        self.backbone.save(again, merged(self.backbone, state))
        self.tokenizer.save_pretrained(again)
        return _distance(scores_BC, self._scores(load_backbone(again).eval(), rationale=True))


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())
