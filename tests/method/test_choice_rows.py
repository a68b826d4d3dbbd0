"""Encoder-decoders that decode each choice as a row of its own: as exact as one at a time."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import EXAMPLES, batch_of, tokens_of
from small_run import small_config
from small_seq2seq import KINDS, LANGUAGE, OPEN, PAD, config_of, save_seq2seq
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from knife.core.errors import UserError
from knife.data.batches import Batch
from knife.data.tokens import Tokens
from knife.inference.answers import too_long
from knife.models.base import Output
from knife.models.check import check_model
from knife.models.choice_rows import ChoiceRows
from knife.models.families import model_class
from knife.models.load import load_backbone
from knife.models.positions import decoder_positions, positions
from knife.models.tokenizer import can_generate, model_config, room_for_choices
from knife.models.weights import saved_buffers
from knife.plan.model_size import model_size
from knife.plan.plan import plan_run
from knife.train.engine import gathered_state
from knife.train.model_settings import ModelSettings

ROWS = list(range(len(EXAMPLES)))
# What BART's decoder reads after its start token, and before an answer.
OPENED = ("bart", "led")


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_seq2seq(kind, tmp_path_factory.mktemp(kind), EXAMPLES)


@pytest.fixture(scope="module")
def tokens(folder: Path) -> Sequence[Tokens]:
    return tokens_of(folder, EXAMPLES)[0]


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Any:
    found = load_backbone(folder).eval()
    assert isinstance(found, ChoiceRows)
    return found


def plain_score(backbone: Any, kind: str, example: Tokens, choice: int, rationale: bool) -> float:
    """Return a choice's score by one forward pass of transformers for it alone; the bottleneck is
    made by cutting off the rationale's states."""
    read = example.input_ids + (example.rationale_ids if rationale else [])
    encoded = backbone.model.get_encoder()(input_ids=torch.tensor([read]))
    encoded.last_hidden_state = encoded.last_hidden_state[:, : len(example.input_ids)]
    ids = example.choice_ids[choice]
    before = [OPEN] if kind in OPENED else []
    # Transformers shifts the labels.
    logits_TV = backbone.model(encoder_outputs=encoded, labels=torch.tensor([before + ids])).logits
    return -float(nn.functional.cross_entropy(logits_TV[0, len(before) :], torch.tensor(ids)))


@pytest.mark.parametrize("rationale", [True, False])
def test_a_score_is_that_of_transformers_for_the_choice_alone(
    backbone: Any, kind: str, tokens: list[Tokens], rationale: bool
) -> None:
    with torch.no_grad():
        output: Output = backbone(batch_of(tokens, PAD, rationale=rationale))
        for row in ROWS:
            for choice in range(len(tokens[row].choice_ids)):
                expected = plain_score(backbone, kind, tokens[row], choice, rationale)
                assert float(output.scores_BC[row, choice]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("rationale", [True, False])
def test_an_example_alone_is_the_same_as_in_a_batch(
    backbone: Any, tokens: list[Tokens], rationale: bool
) -> None:
    layers = [1, 2]
    with torch.no_grad():
        together: Output = backbone(batch_of(tokens, PAD, rationale=rationale), layers)
        for row in ROWS:
            alone: Output = backbone(batch_of(tokens, PAD, rationale=rationale, rows=[row]), layers)
            choices = len(tokens[row].choice_ids)
            close(together.scores_BC[row, :choices], alone.scores_BC[0])
            assert (together.scores_BC[row, choices:] == torch.finfo(torch.float32).min).all()
            own = together.input_mask_BI[row].bool()
            for layer in layers:
                close(together.input_states[layer][row][own], alone.input_states[layer][0])
            close(
                together.output_states_BCTH[row][together.output_mask_BCT[row].bool()],
                alone.output_states_BCTH[0][alone.output_mask_BCT[0].bool()],
            )


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def states_and_gradient(backbone: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the encoder's last states, and the gradient of all scores with respect to them."""
    kept: list[Tensor] = []
    handle = backbone.model.get_encoder().register_forward_hook(
        lambda _module, _inputs, output: kept.append(output.last_hidden_state)
    )
    output: Output = backbone(batch)
    handle.remove()
    (states_BLH,) = kept
    (gradient_BLH,) = torch.autograd.grad(
        output.scores_BC[batch.choice_exists_BC].sum(), states_BLH
    )
    return states_BLH, gradient_BLH


def test_a_rationale_reaches_the_scores_through_task_input_states_alone(
    folder: Path, backbone: Any, tokens: list[Tokens]
) -> None:
    batch = batch_of(tokens, PAD, rationale=True)
    rationale_BL = (batch.mask_BL - batch.input_mask_BL).bool()
    own_BL = batch.input_mask_BL.bool()
    states_BLH, gradient_BLH = states_and_gradient(backbone, batch)
    assert rationale_BL.any()
    assert (gradient_BLH[rationale_BL] == 0).all()
    assert (gradient_BLH[batch.mask_BL == 0] == 0).all()
    assert (gradient_BLH[own_BL] != 0).any(-1).all()
    # Another rationale moves the states of the task input.
    others = torch.where(rationale_BL, batch.ids_BL.flip(0) % 50 + 10, batch.ids_BL)
    moved_BLH, _ = states_and_gradient(backbone, replace(batch, ids_BL=others))
    explained = rationale_BL.any(1)
    assert float((moved_BLH - states_BLH)[explained][own_BL[explained]].abs().max()) > 1e-2
    # Without the bottleneck, the rationale's states are read as well.
    _, gradient_BLH = states_and_gradient(load_backbone(folder, bottleneck=False).eval(), batch)
    assert (gradient_BLH[batch.mask_BL.bool()] != 0).any(-1).all()


def test_every_parameter_is_trained_or_frozen(folder: Path, tokens: list[Tokens]) -> None:
    """One that is neither would decay in some of DeepSpeed's stages."""
    backbone: Any = load_backbone(folder)
    backbone(batch_of(tokens, PAD, rationale=True)).scores_BC.sum().backward()
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == (
            parameter.requires_grad
        ), name


def test_a_saved_model_gives_the_same_scores(
    folder: Path, kind: str, tokens: list[Tokens], tmp_path: Path
) -> None:
    backbone: Any = load_backbone(folder).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
        for tensor in (*trained, *saved_buffers(backbone).values()):
            tensor.add_(0.02 * torch.randn_like(tensor))
    backbone.save(tmp_path, gathered_state(backbone))
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    assert check_model(tmp_path, "model.student").weights.share == 1.0
    again: Any = load_backbone(tmp_path).eval()
    batch = batch_of(tokens, PAD, rationale=True)
    with torch.no_grad():
        scores_BC = backbone(batch).scores_BC
        assert torch.equal(again(batch).scores_BC, scores_BC)
        assert not torch.allclose(load_backbone(folder).eval()(batch).scores_BC, scores_BC)
    # BART and its like add a bias to their logits that is not trained.
    assert bool(saved_buffers(again)) == (not kind.startswith("t5"))
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == load_file(folder / "model.safetensors").keys()


def test_what_is_written_is_the_likeliest_next_token_each_time(
    folder: Path, kind: str, backbone: Any, tokens: list[Tokens]
) -> None:
    if not can_generate(model_config(folder, "model")):
        assert kind == "mbart"
        with pytest.raises(NotImplementedError, match="mBART"):
            backbone.generate(batch_of(tokens, PAD, rationale=False), 4)
        return
    words = [[token] for token in range(decoder_vocabulary(backbone))]
    for bottleneck in (True, False):
        writer: Any = load_backbone(folder, bottleneck=bottleneck).eval()
        rows = [0, 1, 2]
        written = writer.generate(batch_of(tokens, PAD, rationale=True, rows=rows), 4)
        for row, ids in zip(rows, written, strict=True):
            steps = [
                replace(tokens[row], choice_ids=words, choice_spans=[], prefix_ids=ids[:count])
                for count in range(len(ids))
            ]
            with torch.no_grad():
                scores_BC = writer(batch_of(steps, PAD, rationale=True)).scores_BC
            assert scores_BC.argmax(-1).tolist() == ids
            alone = batch_of(tokens, PAD, rationale=True, rows=[row])
            assert writer.generate(alone, 4) == [ids]


def decoder_vocabulary(backbone: Any) -> int:
    return int(backbone.model.get_output_embeddings().weight.shape[0])


def test_answers_begin_and_end_as_the_model_is_used_to(kind: str, tokens: list[Tokens]) -> None:
    """Without the token that begins texts in BART, which the decoder reads but does not score."""
    closing = [2, LANGUAGE] if kind == "mbart" else [2]
    for example in tokens:
        for ids in example.choice_ids:
            assert ids[-len(closing) :] == closing
            assert OPEN not in ids


@pytest.mark.parametrize("limited", ["reads", "writes"])
def test_as_many_tokens_as_there_are_positions(kind: str, limited: str) -> None:
    config = config_of(kind, 60, positions=24)
    assert positions(config) == decoder_positions(config) == 24
    model = model_class(config)(config).eval()
    lengths = {"input_ids": 5, "decoder_input_ids": 5}

    def read(length: int) -> Any:
        lengths["input_ids" if limited == "reads" else "decoder_input_ids"] = length
        ids = {name: torch.arange(length)[None] + 10 for name, length in lengths.items()}
        with torch.no_grad():
            return model(**ids).logits

    assert read(24).isfinite().all()
    # T5Gemma's positions are rotations, which have no end.
    if not kind.startswith("t5gemma"):
        with pytest.raises((IndexError, RuntimeError)):
            read(25)


def test_memory_is_estimated_from_both_parts(folder: Path) -> None:
    config = model_config(folder, "model")
    size = model_size(config, folder)
    assert size
    assert (size.hidden, size.inner, size.feed_forward) == (32, 32, 64)
    assert (size.layers, size.decoder_layers, size.heads) == (2, 2, 2)
    saved = load_file(folder / "model.safetensors").values()
    assert size.parameters == sum(tensor.numel() for tensor in saved)


def change(folder: Path, **values: Any) -> None:
    """Change values of a folder's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_fixed_tables_may_be_missing(tmp_path: Path) -> None:
    """Marian and Pegasus compute the sines of their positions; BART has to learn its own."""
    for kind in ("marian", "pegasus", "bart"):
        folder = save_seq2seq(kind, tmp_path / kind, EXAMPLES[:8])
        path = folder / "model.safetensors"
        state = load_file(path)
        left = {name: tensor for name, tensor in state.items() if "embed_positions" not in name}
        # transformers does not even save Marian's.
        assert len(left) == len(state) - (0 if kind == "marian" else 2)
        save_file(left, path, metadata={"format": "pt"})
        if kind == "bart":
            with pytest.raises(UserError, match=r"2 are missing \(model.decoder.embed_positions"):
                check_model(folder, "model.student")
            continue
        assert check_model(folder, "model.student").weights.share == 1.0
        fresh = AutoModelForSeq2SeqLM.from_config(model_config(folder, "model")).state_dict()
        name = "model.encoder.embed_positions.weight"
        loaded: Any = load_backbone(folder)
        assert torch.equal(loaded.model.state_dict()[name], fresh[name])


def test_configs_that_cannot_write_are_refused(tmp_path: Path) -> None:
    folder = save_seq2seq("bart", tmp_path, EXAMPLES[:8])
    values = {"decoder_start_token_id": None, "pad_token_id": None, "eos_token_id": 5}
    change(folder, **values, decoder_layerdrop=0.1)
    with pytest.raises(UserError) as found:
        check_model(folder, "model.student")
    start, padding, dropped, end = found.value.errors
    assert "config.json has decoder_layerdrop, but layers that are left out at random" in dropped
    assert "config.json has no decoder_start_token_id, from which" in start
    assert "config.json has no pad_token_id, with which choices are padded" in padding
    assert "eos_token_id is 5 in config.json but 2 in the tokenizer" in end


def test_two_vocabularies_are_refused(tmp_path: Path) -> None:
    folder = save_seq2seq(
        "marian", tmp_path, EXAMPLES[:8], share_encoder_decoder_embeddings=False,
        tie_word_embeddings=False,
    )  # fmt: skip
    with pytest.raises(UserError, match="its decoder has other tokens than its encoder"):
        check_model(folder, "model.student")


def test_experts_that_a_batch_may_not_reach_are_refused(tmp_path: Path) -> None:
    config_of("switch_transformers", 60).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"'switch_transformers' models are not supported: an exp"):
        model_config(tmp_path, "model.student")


def run_errors(folder: Path, store: Path, **changes: Any) -> list[str]:
    with pytest.raises(UserError) as found:
        plan_run(
            small_config(store, model={"teacher": str(folder), "student": str(folder)}, **changes)
        )
    return found.value.errors


def test_a_plan_keeps_to_the_positions_of_both_parts(tmp_path: Path) -> None:
    folder = save_seq2seq("bart", tmp_path / "bart", EXAMPLES, positions=100)
    assert run_errors(folder, tmp_path, data={"max_tokens": 101}) == [
        f"data.max_tokens: must be at most 100, the positions of model.{name}, but got 101"
        for name in ("student", "teacher")
    ]
    folder = save_seq2seq("led", tmp_path / "led", EXAMPLES, max_decoder_position_embeddings=3)
    room = room_for_choices(folder, AutoTokenizer.from_pretrained(folder))
    assert room
    assert (room.tokens, room.with_input) == (2, False)
    settings = ModelSettings(rationale=False, bottleneck=True, max_tokens=256)
    longer = tokens_of(folder, EXAMPLES[:1])[0]
    assert too_long(longer, settings, room) == [
        f"with generated text, the longest choice is {max(map(len, longer[0].choice_ids))} tokens "
        "long, but the student has positions for 2"
    ]
    errors = run_errors(folder, tmp_path)
    assert len(errors) == 2
    for name, error in zip(("student", "teacher"), errors, strict=True):
        assert error.startswith("data.source: the longest answer has ")
        assert f"but the decoder of model.{name} has 3 positions; leave" in error


def test_what_mbart_would_have_to_write_is_refused(tmp_path: Path) -> None:
    folder = save_seq2seq("mbart", tmp_path / "mbart", EXAMPLES)
    errors = run_errors(folder, tmp_path, methods=["explain_then_answer"])
    assert errors == [
        "methods: students of explain_then_answer generate text, but model.student is an mBART, "
        "which cannot; use an encoder-decoder or a decoder-only model, or leave the method out"
    ]
