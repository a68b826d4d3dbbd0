"""Decoder-only models of many families, which read a plain text for each choice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small import EXAMPLES, batch_of, tokens_of
from tiny_families import save_decoder
from torch import Tensor

from knife.data.tokens import Tokens, answer_start
from knife.method.objective import Objective
from knife.models import two_readings
from knife.models.decoder_only import DecoderOnly
from knife.models.generation import Prefix
from knife.models.load import load_backbone
from knife.models.tokenizer import load_tokenizer
from knife.models.two_readings import TwoReadings

# One of each kind of layer: windows, biases on distances, recurrence, convolutions, experts,
# chunks, several predictions of a state.
FAMILIES = (
    "bloom",
    "gemma3n_text",
    "gemma4_text",
    "gptj",
    "granitemoehybrid",
    "lfm2",
    "llama4_text",
    "mamba",
    "opt",
    "qwen3_5_text",
)
SOME = [*EXAMPLES[:5], *EXAMPLES[-2:]]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(
    request: pytest.FixtureRequest, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    save_decoder(request.param, tiny_llama, folder)
    return folder


@pytest.fixture(scope="module")
def tokens(folder: Path) -> Sequence[Tokens]:
    return tokens_of(folder, SOME)[0]


def plain_scores(backbone: Any, tokens: Sequence[Tokens], *, rationale: bool) -> Tensor:
    """Return the mean log-probability of each choice behind the whole text before it."""
    start = backbone._start
    found = []
    for example in tokens:
        before = (example.rationale_ids if rationale else []) + example.input_ids + start
        for choice in example.choice_ids:
            logits = backbone.model(torch.tensor([before + choice])).logits[0, len(before) - 1 : -1]
            chosen = logits.log_softmax(-1).gather(1, torch.tensor(choice)[:, None])
            found.append(chosen.mean())
    return torch.stack(found)


def scores_of(backbone: Any, tokens: Sequence[Tokens], *, rationale: bool) -> Tensor:
    batch = batch_of(tokens, 0, rationale=rationale)
    scores: Tensor = backbone(batch).scores_BC[batch.choice_exists_BC]
    return scores


@torch.no_grad()
@pytest.mark.parametrize("rationale", [True, False])
def test_scores_are_those_of_one_plain_text_for_each_choice(
    folder: Path, tokens: Sequence[Tokens], rationale: bool
) -> None:
    """Of a student, and of a teacher without the bottleneck."""
    backbone = load_backbone(folder, bottleneck=False).eval()
    assert isinstance(backbone, TwoReadings)
    expected = plain_scores(backbone, tokens, rationale=rationale)
    found = scores_of(backbone, tokens, rationale=rationale)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_example_alone_is_the_same_as_in_a_batch(folder: Path, tokens: Sequence[Tokens]) -> None:
    backbone: Any = load_backbone(folder).eval()
    layers = [1, backbone.depth]
    batch = batch_of(tokens, 0, rationale=True)
    together = backbone(batch, layers)
    for row in range(len(tokens)):
        alone = backbone(batch_of(tokens, 0, rationale=True, rows=[row]), layers)
        choices = batch.choice_exists_BC[row]
        torch.testing.assert_close(
            together.scores_BC[row][choices], alone.scores_BC[0], atol=1e-5, rtol=1e-5
        )
        own = together.input_mask_BI[row].bool()
        for layer in layers:
            torch.testing.assert_close(
                together.input_states[layer][row][own],
                alone.input_states[layer][0],
                atol=5e-5,
                rtol=5e-5,
            )
        torch.testing.assert_close(
            together.output_states_BCTH[row][together.output_mask_BCT[row].bool()],
            alone.output_states_BCTH[0][alone.output_mask_BCT[0].bool()],
            atol=5e-5,
            rtol=5e-5,
        )


@torch.no_grad()
def test_the_answer_depends_on_the_task_inputs_states_alone(
    folder: Path, tokens: Sequence[Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their states given, the tokens of `I` in the second reading do not matter."""
    backbone: Any = load_backbone(folder).eval()
    explained = [each for each in tokens if each.rationale_ids]
    expected = scores_of(backbone, explained, rationale=True)
    student = scores_of(backbone, explained, rationale=False)
    assert float((expected - student).abs().max()) > 1e-3
    behind = two_readings._behind

    def with_other_tokens(text_XL: Tensor, end_X: Tensor, answer_XA: Tensor) -> Tensor:
        ids_XN = behind(text_XL, end_X, answer_XA)
        before = torch.arange(ids_XN.shape[1]) < end_X[:, None]
        return torch.where(before, (7 * ids_XN + 13) % 300, ids_XN)

    monkeypatch.setattr(two_readings, "_behind", with_other_tokens)
    assert torch.equal(scores_of(backbone, explained, rationale=True), expected)
    # Without given states, they do.
    assert not torch.allclose(scores_of(backbone, explained, rationale=False), student, atol=1e-2)


def test_gradient_reaches_every_weight(folder: Path, tokens: Sequence[Tokens]) -> None:
    objective = Objective(load_backbone(folder)).train()
    objective(batch_of(tokens, 0, rationale=True)).loss.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_what_is_generated_is_the_likeliest(folder: Path, tokens: Sequence[Tokens]) -> None:
    backbone: Any = load_backbone(folder).eval()
    rows = [0, len(tokens) - 1]
    batch = batch_of(tokens, 0, rationale=False, rows=rows)
    written = backbone.generate(batch, 4)
    start = answer_start(load_tokenizer(folder, "model"))
    for row, ids in zip(rows, written, strict=True):
        text = tokens[row].input_ids + start
        for token in ids:
            assert token == int(backbone.model(torch.tensor([text])).logits[0, -1].argmax())
            text.append(token)
    # Behind what is given, it goes on as it would by itself.
    prefix = Prefix([ids[:n] for n, ids in enumerate(written, 1)], torch.device("cpu"))
    assert backbone.generate(batch, 4, prefix=prefix) == written
    other = Prefix([[7, 9], [8]], torch.device("cpu"))
    behind = backbone.generate(batch, 4, prefix=other)
    assert [behind[0][:2], behind[1][:1]] == [[7, 9], [8]]


def test_two_readings_are_one_sequence_with_our_mask(tiny_llama: Path) -> None:
    """Scores, states and gradients of a family that can be read in both ways."""
    tokens, pad = tokens_of(tiny_llama, SOME)
    batch = batch_of(tokens, pad, rationale=True)
    backbones: list[Any] = [DecoderOnly(tiny_llama).eval(), TwoReadings(tiny_llama).eval()]
    one, two = (backbone(batch, [1, backbone.depth]) for backbone in backbones)
    torch.testing.assert_close(one.scores_BC, two.scores_BC, atol=1e-5, rtol=1e-5)
    own = one.input_mask_BI.bool()
    for layer, states in one.input_states.items():
        torch.testing.assert_close(states[own], two.input_states[layer][own], atol=2e-5, rtol=1e-5)
    for backbone, output in zip(backbones, (one, two), strict=True):
        exists = batch.choice_exists_BC
        (output.scores_BC[exists].sum() + output.input_states[1][own].square().sum()).backward()
        assert all(parameter.grad is not None for parameter in backbone.parameters())
    for mine, other in zip(*(backbone.parameters() for backbone in backbones), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        assert float((mine.grad - other.grad).norm() / mine.grad.norm()) < 1e-5
