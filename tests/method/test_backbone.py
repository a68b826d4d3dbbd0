"""What every backbone must do, in every family."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from small import EXAMPLES, batch_of, tokens_of
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BlenderbotConfig,
    DynamicCache,
    GPT2Model,
    ViTConfig,
)

from knife.config.run import Align
from knife.core.errors import UserError
from knife.data.batches import Batch
from knife.data.tokens import Tokens, answer_start
from knife.method.objective import Alignment, Objective
from knife.method.states import OnlineTeacher
from knife.models.base import Output
from knife.models.decoder_only import DecoderOnly
from knife.models.encoder_decoder import EncoderDecoder
from knife.models.generation import Prefix
from knife.models.load import load_backbone
from knife.models.source import EMBEDDED, find_model
from knife.models.tokenizer import can_generate, load_tokenizer, model_config
from knife.train.context import PlainContext
from knife.train.engine import gathered_state

ROWS = list(range(len(EXAMPLES)))


@pytest.fixture(scope="module")
def tokens(model_folder: Path) -> Sequence[Tokens]:
    return tokens_of(model_folder, EXAMPLES)[0]


@pytest.fixture(scope="module")
def pad(model_folder: Path) -> int:
    return tokens_of(model_folder, EXAMPLES[:1])[1]


@pytest.fixture
def backbone(model_folder: Path) -> Any:
    return load_backbone(model_folder).eval()


def encoder_of(backbone: Any) -> nn.Module:
    """Return the part of the model that reads the task input."""
    encoder: nn.Module
    if isinstance(backbone, EncoderDecoder):
        encoder = backbone.model.get_encoder()
    elif isinstance(backbone, DecoderOnly):
        encoder = backbone.model.base_model
    else:
        encoder = backbone.encoder
    return encoder


def scores_and_gradient(backbone: Any, batch: Batch) -> tuple[Output, Tensor]:
    """Return the output, and the summed absolute gradient of all scores with respect to the states
    that the answer reads: the encoder's last ones, or those before each layer of a decoder-only
    model, through the answer's own attention."""
    kept: list[Tensor] = []
    handles = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        kept.append(output.last_hidden_state)

    def cut(_module: nn.Module, inputs: Any) -> Any:
        read_BLH, answer_BNH = inputs[0].tensor_split([batch.ids_BL.shape[1]], 1)
        kept.append(read_BLH.detach().requires_grad_())
        return torch.cat([kept[-1], answer_BNH], 1), *inputs[1:]

    if isinstance(backbone, DecoderOnly):
        layers = next(m for m in encoder_of(backbone).children() if isinstance(m, nn.ModuleList))
        handles = [layer.register_forward_pre_hook(cut) for layer in layers]
    else:
        handles = [encoder_of(backbone).register_forward_hook(keep)]
    output: Output = backbone(batch)
    for handle in handles:
        handle.remove()
    assert len(kept) == len(handles), "the task input is encoded once"
    gradients = torch.autograd.grad(output.scores_BC[batch.choice_exists_BC].sum(), kept)
    return output, torch.stack(gradients).abs().sum(0)


def test_scores_hang_on_no_rationale_state_with_the_bottleneck(
    backbone: Any, tokens: list[Tokens], pad: int
) -> None:
    batch = batch_of(tokens, pad, rationale=True)
    _, gradient_BLH = scores_and_gradient(backbone, batch)
    rationale_BL = (batch.mask_BL - batch.input_mask_BL).bool()
    assert rationale_BL.any()
    assert (gradient_BLH[rationale_BL] == 0).all()
    assert (gradient_BLH[batch.mask_BL == 0] == 0).all()
    assert (gradient_BLH[batch.input_mask_BL.bool()] != 0).any(-1).all()


def test_scores_hang_on_rationale_states_without_the_bottleneck(
    model_folder: Path, tokens: list[Tokens], pad: int
) -> None:
    backbone: Any = load_backbone(model_folder, bottleneck=False).eval()
    batch = batch_of(tokens, pad, rationale=True)
    _, gradient_BLH = scores_and_gradient(backbone, batch)
    assert (gradient_BLH[batch.mask_BL.bool()] != 0).any(-1).all()
    assert (gradient_BLH[batch.mask_BL == 0] == 0).all()


def test_the_rationale_reaches_the_scores_through_task_input_states(
    backbone: Any, tokens: list[Tokens], pad: int
) -> None:
    explained = [row for row in ROWS if tokens[row].rationale_ids]
    with torch.no_grad():
        teacher: Output = backbone(batch_of(tokens, pad, rationale=True, rows=explained))
        student: Output = backbone(batch_of(tokens, pad, rationale=False, rows=explained))
    exists = teacher.scores_BC > torch.finfo(torch.float32).min
    moved = (teacher.scores_BC - student.scores_BC).abs()[exists]
    assert float(moved.median()) > 1e-3
    # An example without a rationale is the same for both.
    plain = [row for row in ROWS if not tokens[row].rationale_ids]
    assert plain
    same = [backbone(batch_of(tokens, pad, rationale=r, rows=plain)) for r in (True, False)]
    torch.testing.assert_close(same[0].scores_BC, same[1].scores_BC)


@pytest.mark.parametrize("bottleneck", [True, False])
def test_cross_attention_over_the_rationale_is_zero(bottleneck: bool) -> None:
    backbone: Any = load_backbone(EMBEDDED["tiny-t5"], bottleneck=bottleneck).eval()
    backbone.model.set_attn_implementation("eager")
    backbone.model.forward = partial(backbone.model.forward, output_attentions=True)
    kept: list[Any] = []
    backbone.model.register_forward_hook(lambda _m, _i, output: kept.append(output))
    tokens, pad = tokens_of(EMBEDDED["tiny-t5"], EXAMPLES)
    batch = batch_of(tokens, pad, rationale=True)
    backbone(batch)
    rationale_BL = (batch.mask_BL - batch.input_mask_BL).bool()
    input_BL = batch.input_mask_BL.bool()
    assert len(kept[0].cross_attentions) == 2
    for weights_BNTL in kept[0].cross_attentions:
        over_rationale = weights_BNTL.permute(0, 3, 1, 2)[rationale_BL]
        if bottleneck:
            assert (over_rationale == 0).all()
        else:
            assert (over_rationale > 0).any()
        assert (weights_BNTL.permute(0, 3, 1, 2)[input_BL] > 0).any()


@pytest.mark.parametrize("rationale", [True, False])
def test_an_example_alone_is_the_same_as_in_a_batch(
    backbone: Any, tokens: list[Tokens], pad: int, rationale: bool
) -> None:
    """Padding and other examples change neither scores nor states of I nor output states."""
    layers = list(range(1, backbone.depth + 1))
    with torch.no_grad():
        together: Output = backbone(batch_of(tokens, pad, rationale=rationale), layers)
        for row in ROWS:
            alone: Output = backbone(batch_of(tokens, pad, rationale=rationale, rows=[row]), layers)
            choices = len(tokens[row].choice_ids)
            torch.testing.assert_close(
                together.scores_BC[row, :choices], alone.scores_BC[0], atol=1e-5, rtol=1e-5
            )
            assert (together.scores_BC[row, choices:] == torch.finfo(torch.float32).min).all()
            own = together.input_mask_BI[row].bool()
            assert int(own.sum()) == len(tokens[row].input_ids)
            for layer in layers:
                torch.testing.assert_close(
                    together.input_states[layer][row][own],
                    alone.input_states[layer][0],
                    atol=2e-5,
                    rtol=1e-5,
                )
            torch.testing.assert_close(
                together.output_states_BCTH[row][together.output_mask_BCT[row].bool()],
                alone.output_states_BCTH[0][alone.output_mask_BCT[0].bool()],
                atol=2e-5,
                rtol=1e-5,
            )


@pytest.mark.parametrize("rationale", [True, False])
def test_one_encoding_for_all_choices_is_as_good_as_one_for_each(
    backbone: Any, tokens: list[Tokens], pad: int, rationale: bool
) -> None:
    with torch.no_grad():
        output: Output = backbone(batch_of(tokens, pad, rationale=rationale))
        for row in ROWS:
            for choice in range(len(tokens[row].choice_ids)):
                naive = naive_score(backbone, tokens[row], choice, rationale)
                assert float(output.scores_BC[row, choice]) == pytest.approx(naive, abs=2e-5)


def naive_score(backbone: Any, example: Tokens, choice: int, rationale: bool) -> float:
    """Score one choice by itself; the bottleneck is made by cutting off the rationale's states."""
    before = example.rationale_ids if rationale else []
    own = len(example.input_ids)
    if isinstance(backbone, DecoderOnly):
        return naive_decoder_score(backbone, before, example.input_ids, example.choice_ids[choice])
    sequence = example.input_ids + before
    if isinstance(backbone, EncoderDecoder):
        states = encoder_of(backbone)(torch.tensor([sequence])).last_hidden_state[:, :own]
        target = torch.tensor([example.choice_ids[choice]])
        output = backbone.model(encoder_outputs=(states,), labels=target)
        # Transformers' own loss: the mean negative log-probability of the target's tokens.
        return -float(output.loss)
    types = torch.tensor([[0] * own + [1] * (len(sequence) - own)])
    states = backbone.encoder(torch.tensor([sequence]), token_type_ids=types).last_hidden_state
    start, end = example.choice_spans[choice]
    whole, part = states[0, :own].mean(0), states[0, start:end].mean(0)
    answer = backbone.head(torch.cat([whole, part, whole * part]))
    return float(backbone.score(answer))


def naive_decoder_score(
    backbone: DecoderOnly, before: list[int], own: list[int], choice: list[int]
) -> float:
    """Read `[R ; I]` as transformers does, cut `R` out of its cache, then read the answer."""
    rows = backbone.model.config.max_position_embeddings
    # A table of positions has no negative ones: Python's index from the end is the same row.
    table = isinstance(encoder_of(backbone), GPT2Model)
    places = torch.arange(-len(before), len(own))[None]
    read = backbone.model(
        torch.tensor([before + own]),
        position_ids=torch.where(places < 0, rows + places, places) if table else places,
        attention_mask=torch.ones(1, len(before) + len(own)),
        use_cache=True,
    )
    cache = DynamicCache()
    for number, layer in enumerate(read.past_key_values.layers):
        cache.update(layer.keys[:, :, len(before) :], layer.values[:, :, len(before) :], number)
    start = answer_start(load_tokenizer(Path(backbone.model.config._name_or_path), "model"))
    sequence = start + choice
    answer = backbone.model(
        torch.tensor([sequence]),
        position_ids=torch.arange(len(own), len(own) + len(sequence))[None],
        past_key_values=cache,
    )
    logits_TV = answer.logits[0, len(start) - 1 : -1]
    return -float(nn.functional.cross_entropy(logits_TV, torch.tensor(choice)))


@pytest.mark.parametrize("bottleneck", [True, False])
@pytest.mark.parametrize("rationale", [True, False])
def test_what_is_written_is_the_likeliest_next_token_each_time(
    model_folder: Path, tokens: list[Tokens], pad: int, bottleneck: bool, rationale: bool
) -> None:
    """Each generated token, as an answer after the earlier ones, scores highest of all tokens."""
    if not can_generate(model_config(model_folder, "model")):
        with pytest.raises(NotImplementedError):
            load_backbone(model_folder).generate(batch_of(tokens, pad, rationale=rationale), 5)
        return
    backbone: Any = load_backbone(model_folder, bottleneck=bottleneck).eval()
    closing = tokens[0].choice_ids[0][-1]
    words = [[token] for token in range(backbone.model.config.vocab_size)]
    written = backbone.generate(batch_of(tokens, pad, rationale=rationale), 6)
    assert len({tuple(ids) for ids in written}) > 1
    for row in (0, 3, 5):
        ids = written[row]
        assert 1 <= len(ids) <= 6
        assert closing not in ids[:-1]
        steps = [
            replace(tokens[row], choice_ids=words, choice_spans=[], prefix_ids=ids[:count])
            for count in range(len(ids))
        ]
        with torch.no_grad():
            scores_BC = backbone(batch_of(steps, pad, rationale=rationale)).scores_BC
        assert scores_BC.argmax(-1).tolist() == ids
        # Alone or in a batch, including one with longer texts.
        alone = batch_of(tokens, pad, rationale=rationale, rows=[row])
        assert backbone.generate(alone, 6) == [ids]
    batch = batch_of(tokens, pad, rationale=rationale)
    with PlainContext():
        assert backbone.generate(batch, 6, synced_gpus=True) == written
    both = backbone.generate(batch, 9, eos_count=2)
    for first, longer in zip(written, both, strict=True):
        assert longer[: len(first)] == first
        assert longer.count(closing) <= 2
    # Behind what is given, of another length in each row, it goes on as it would by itself.
    given = [longer[: row % 4] for row, longer in enumerate(both)]
    prefix = Prefix(given, torch.device("cpu"))
    assert backbone.generate(batch, 9, eos_count=2, prefix=prefix) == both
    others = [[*tokens[row].choice_ids[-1][: row % 2 + 1]] for row in range(len(tokens))]
    behind = backbone.generate(batch, 9, eos_count=2, prefix=Prefix(others, torch.device("cpu")))
    assert [ids[: len(own)] for ids, own in zip(behind, others, strict=True)] == others
    steps = [
        replace(tokens[3], choice_ids=words, choice_spans=[], prefix_ids=behind[3][:count])
        for count in range(len(others[3]), len(behind[3]))
    ]
    with torch.no_grad():
        scores_BC = backbone(batch_of(steps, pad, rationale=rationale)).scores_BC
    assert scores_BC.argmax(-1).tolist() == behind[3][len(others[3]) :]


def test_states_are_those_of_the_task_input_in_the_chosen_layers(
    backbone: Any, tokens: list[Tokens], pad: int
) -> None:
    batch = batch_of(tokens, pad, rationale=False)
    columns = max(len(t.input_ids) for t in tokens)
    layers = [1, backbone.depth]
    output: Output = backbone(batch, layers)
    assert list(output.input_states) == layers
    for states_BIH in output.input_states.values():
        assert states_BIH.shape == (len(tokens), columns, backbone.width)
    assert torch.equal(output.input_mask_BI, batch.input_mask_BL)
    assert output.output_states_BCTH.shape[-1] == backbone.output_width
    assert output.output_mask_BCT.shape == output.output_states_BCTH.shape[:3]
    # The same columns for the teacher, although its sequences are longer.
    teacher: Output = backbone(batch_of(tokens, pad, rationale=True), layers)
    assert teacher.input_states[1].shape == output.input_states[1].shape
    # The last layer's states are the encoder's output, and no two layers are equal.
    encoded = encoder_of(backbone)(input_ids=batch.ids_BL, attention_mask=batch.mask_BL)
    own = batch.input_mask_BL.bool()
    torch.testing.assert_close(
        output.input_states[backbone.depth][own], encoded.last_hidden_state[own]
    )
    assert not torch.allclose(output.input_states[1], output.input_states[backbone.depth])
    assert backbone(batch).input_states == {}


@pytest.fixture
def trained(backbone: Any) -> Any:
    """Return a backbone whose weights differ from those of its folder."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return backbone


def test_a_saved_model_gives_the_same_scores(
    trained: Any, model_folder: Path, tokens: list[Tokens], pad: int, tmp_path: Path
) -> None:
    trained.save(tmp_path, gathered_state(trained))
    load_tokenizer(model_folder, "model").save_pretrained(tmp_path)
    batch = batch_of(tokens, pad, rationale=True)
    again: Any = load_backbone(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(again(batch).scores_BC, trained(batch).scores_BC)
        before = load_backbone(model_folder).eval()(batch).scores_BC
        assert not torch.allclose(before, trained(batch).scores_BC, atol=1e-3)
        plain: Any
        if isinstance(trained, EncoderDecoder):
            plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval().get_encoder()
        elif isinstance(trained, DecoderOnly):
            plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval().base_model
        else:
            plain = AutoModel.from_pretrained(tmp_path).eval()
        encoders = [encoder_of(trained), plain]
        ids = {"input_ids": batch.ids_BL, "attention_mask": batch.mask_BL}
        states = [encoder(**ids).last_hidden_state for encoder in encoders]
        assert torch.equal(*states)
    assert tokens_of(tmp_path, EXAMPLES)[0] == tokens


def test_nothing_of_the_teacher_is_in_the_students_weights(
    model_folder: Path, backbone: Any, tmp_path: Path
) -> None:
    teacher = OnlineTeacher(load_backbone(model_folder), [backbone.depth])
    width = backbone.width
    layers = ((backbone.depth, backbone.depth),)
    objective = Objective(backbone, Alignment(Align(), layers, width, width, {2: 1.0}))
    own = {f"backbone.{name}" for name in backbone.state_dict()}
    assert set(objective.state_dict()) == own
    assert {id(p) for p in objective.parameters()}.isdisjoint(
        id(p) for p in teacher.backbone.parameters()
    )
    assert not any(p.requires_grad for p in teacher.backbone.parameters())
    backbone.save(tmp_path, gathered_state(backbone))
    source = next(model_folder.glob("*.safetensors"))
    with (
        safe_open(source, framework="pt") as before,
        safe_open(tmp_path / "model.safetensors", framework="pt") as after,
    ):
        assert set(after.keys()) == set(before.keys())


def test_new_weights_come_from_the_seed_and_leave_random_numbers_alone(tiny_bert: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    backbones: list[Any] = [load_backbone(tiny_bert, seed=seed) for seed in (0, 0, 1)]
    heads = [backbone.score.weight for backbone in backbones]
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_batches_move_to_a_device_whole(tiny_bert: Path) -> None:
    tokens, pad = tokens_of(tiny_bert, EXAMPLES[:2])
    batch = batch_of(tokens, pad, rationale=True).to(torch.device("meta"))
    assert all(getattr(batch, name).device.type == "meta" for name in Batch.__slots__)


def test_unfit_model_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model.student: .* has no config.json"):
        model_config(tmp_path, "model.student")
    (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(UserError, match=r"^model.student: .* is not a known model"):
        model_config(tmp_path, "model.student")
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(UserError, match=r"^model.student: .* is not a known model"):
        model_config(tmp_path, "model.student")
    with pytest.raises(UserError, match=r"^model.student: .* has a model but no tokenizer"):
        load_tokenizer(tmp_path, "model.student")
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(UserError, match=r"^model.student: the tokenizer in .* cannot be read"):
        load_tokenizer(tmp_path, "model.student")
    # It reads pictures.
    ViTConfig(hidden_size=8, num_attention_heads=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^model.student: 'vit' models are not supported"):
        model_config(tmp_path, "model.student")
    BlenderbotConfig(d_model=8, vocab_size=9).save_pretrained(tmp_path)
    expected = (
        r"^model.student: 'blenderbot' models are not supported; .* encoder-decoder \(longt5,"
    )
    with pytest.raises(UserError, match=expected):
        model_config(tmp_path, "model.student")
    with pytest.raises(UserError, match=r"^model.student: .*config.json' is a file; give the mode"):
        find_model(str(tmp_path / "config.json"), "model.student")
    with pytest.raises(
        UserError, match=r"^model.teacher: './nowhere' is neither an existing folder nor a hub id"
    ):
        find_model("./nowhere", "model.teacher")


def test_a_models_identity_is_that_of_its_files(tmp_path: Path, tiny_bert: Path) -> None:
    identity = find_model(str(tiny_bert), "model.student").identity
    copy = shutil.copytree(tiny_bert, tmp_path / "copy")
    assert find_model(str(copy), "model.student").identity == identity
    # Files that are not read do not count; a tokenizer's file does.
    (copy / "notes.md").write_text("x")
    assert find_model(str(copy), "model.student").identity == identity
    tokenizer = copy / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    assert find_model(str(copy), "model.student").identity != identity
    assert find_model("tiny-t5", "model.student").local() == EMBEDDED["tiny-t5"]
