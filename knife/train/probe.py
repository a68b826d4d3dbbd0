"""A trained student whose task inputs are disturbed, or asked which of their tokens matter."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from knife.data.batches import Batch, Rows, collate
from knife.data.example import Example
from knife.data.forms import asked_to_explain, closed_rationale
from knife.data.tokenizing import tokenize
from knife.data.tokens import Tokens, openings
from knife.method.objective import Objective
from knife.models.tokenizer import load_tokenizer
from knife.train.context import PlainContext
from knife.train.evaluate import answer_split, predictions
from knife.train.model_settings import ModelSettings
from knife.train.stage_context import load_published

# Changes what an embedding returns, given the ids that it was asked for; or only looks at it.
Change = Callable[[Tensor, Batch], Tensor]


class Probed:
    """A model of a store, in this process."""

    def __init__(self, model: Path) -> None:
        self.settings = ModelSettings.read(model)
        self.tokenizer = load_tokenizer(model, "model")
        self.context = PlainContext()
        self.objective = Objective(load_published(model)).to(self.context.device).eval()
        self.pad_id: int = self.tokenizer.pad_token_id or 0

    def answer(
        self,
        examples: Sequence[Example],
        *,
        rationale: bool = False,
        level: float = 0.0,
        seed: int = 0,
    ) -> list[dict[str, Any]]:
        """Return the predictions of examples, with Gaussian noise on the embeddings of their task
        inputs whose standard deviation is `level` times that of all embeddings.

        Raises:
            NotFiniteError: the model's outputs are NaN or infinite.
        """
        tokens = self._tokens(examples)
        asking = self.settings.asking(self.tokenizer, rationale=rationale)
        ids = [example.id for example in examples]
        model: Any = _Disturbed(self.objective, level, seed) if level else self.objective
        answers = answer_split(model, tokens, ids, self.pad_id, self.context, asking)
        return predictions(ids, tokens, answers)

    def importances(
        self, examples: Sequence[Example], rows: Sequence[dict[str, Any]]
    ) -> list[tuple[Tensor, Tensor]]:
        """Return how important each token of the task inputs is for the answer that was given, and
        for the rationale that was written, never an empty one: the sum of the absolute values of
        the gradient of its log-probability by the token's embedding (Wiegreffe et al. 2021)."""
        if not examples:
            return []
        explains = self.settings.asking(self.tokenizer, rationale=False).explains
        pairs = zip(examples, rows, strict=True)
        tokens = self._tokens([replace(e, rationale=row["rationale"] or None) for e, row in pairs])
        asked = asked_to_explain(tokens, self.tokenizer)
        first = int(tokens[0].input_ids[0] in openings(self.tokenizer))
        found = []
        for each, row in zip(tokens, rows, strict=True):
            answer, said = each.choice_ids[row["choice"]], closed_rationale(each)
            label = _text(each, answer, before=said if explains == "first" else [])
            rationale = _text(each, said, before=answer if explains == "after" else [])
            if explains == "apart":
                rationale = replace(rationale, input_ids=asked(each))
            one, other = self._importance(label), self._importance(rationale)
            # Without the special token before, and the word that asks to explain.
            length = len(each.input_ids) - first
            found.append((one[-length:], other[-length:]))
        return found

    def _importance(self, tokens: Tokens) -> Tensor:
        batch = collate([tokens], Rows([0], [1.0]), self.pad_id, False).to(self.context.device)
        seen: list[Tensor] = []

        def keep(embedded_BLH: Tensor, _batch: Batch) -> Tensor:
            kept = embedded_BLH.detach().requires_grad_()
            seen.append(kept)
            return kept

        with task_input_embeddings(self.objective.backbone, batch, keep):
            score = self.objective(batch).scores_BC[0, 0]
        (gradient,) = torch.autograd.grad(score, seen[0])
        return gradient[0].abs().sum(-1).cpu()

    def _tokens(self, examples: Sequence[Example]) -> list[Tokens]:
        return list(tokenize(examples, self.tokenizer, self.settings.max_tokens)[0])


class _Disturbed:
    """An objective whose task inputs are noisy; equal batches have equal noise."""

    def __init__(self, objective: Objective, level: float, seed: int) -> None:
        weight = objective.backbone.model.get_input_embeddings().weight
        self._objective, self._seed = objective, seed
        self._deviation = level * float(weight.detach().float().std())
        # As `answer_split` asks a model for what generates.
        self.backbone = self

    def __call__(self, batch: Batch) -> Any:
        with task_input_embeddings(self._objective.backbone, batch, self._noisy):
            return self._objective(batch)

    def generate(self, batch: Batch, *args: Any, **options: Any) -> Any:
        with task_input_embeddings(self._objective.backbone, batch, self._noisy):
            return self._objective.backbone.generate(batch, *args, **options)

    def _noisy(self, embedded_BLH: Tensor, batch: Batch) -> Tensor:
        draw = torch.Generator().manual_seed(self._seed * 1_000_003 + int(batch.row_B[0]))
        noise_BLH = torch.randn(embedded_BLH.shape, generator=draw).to(embedded_BLH)
        mask_BL1 = batch.input_mask_BL[:, :, None].to(embedded_BLH.dtype)
        return embedded_BLH + self._deviation * noise_BLH * mask_BL1


@contextmanager
def task_input_embeddings(backbone: Any, batch: Batch, change: Change) -> Iterator[None]:
    """Within this, `change` decides what a model's layers read at the tokens of `[I ; R]`, whenever
    it embeds these; columns behind them are left alone."""
    weight = backbone.model.get_input_embeddings().weight
    width, changed = batch.ids_BL.shape[1], False

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output_BNH: Tensor) -> Tensor:
        nonlocal changed
        ids_BN = inputs[0]
        if ids_BN.ndim != 2 or ids_BN.shape[0] != len(batch.ids_BL) or ids_BN.shape[1] < width:
            return output_BNH
        if not torch.equal(ids_BN[:, :width], batch.ids_BL):
            return output_BNH
        changed = True
        own_BLH = change(output_BNH[:, :width], batch)
        return torch.cat([own_BLH, output_BNH[:, width:]], 1)

    # Encoder and decoder may have embeddings of their own with the same weights.
    hooks = [
        module.register_forward_hook(hook)
        for module in backbone.model.modules()
        if isinstance(module, nn.Embedding) and module.weight is weight
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()
    assert changed, "the model did not embed its task input"


def _text(example: Tokens, ids: list[int], *, before: list[int]) -> Tokens:
    """Return a question whose only text to score is `ids`, behind others."""
    return replace(
        example, choice_ids=[ids], choice_spans=[], answer=0, open=True, prefix_ids=before
    )
