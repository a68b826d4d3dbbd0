"""Low-rank adapters: trained by every stage of ZeRO as by torch alone, merged at the end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from measured import measure
from pair import made
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from small import EXAMPLES, batch_of, save_tiny_gpt2, tokens_of
from small_run import small_config
from small_seq2seq import save_seq2seq
from student import TRAINING, KilledError, Student, same_weights, weights
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from knife.config.lora import Lora
from knife.config.run import Training
from knife.config.scale import Scale
from knife.core.errors import UserError
from knife.data.batches import Rows, collate
from knife.data.tokens import Tokens
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.models.lora import adapters_size, add_adapters, merged
from knife.models.self_test import adapters_test
from knife.models.source import EMBEDDED
from knife.models.tokenizer import load_tokenizer, model_config
from knife.plan import adapters
from knife.plan.memory import Lengths, training_need
from knife.plan.model_size import model_size
from knife.plan.plan import plan_run
from knife.plan.stages import METHOD_VERSION
from knife.train.context import PlainContext
from knife.train.engine import gathered_state, schedule, start_engine
from knife.train.scaled import scaled

LORA = Lora(rank=4, alpha=8)
STEPS = 6
SETTINGS = Training(epochs=1, learning_rate=1e-2, batch_size=len(EXAMPLES), clip=0.5, lora=LORA)
KINDS = ["tiny-t5", "tiny-bert", "tiny-llama", "gpt2"]


@pytest.fixture
def context() -> Iterator[PlainContext]:
    with PlainContext() as context:
        yield context


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a model of each kind; GPT-2's linear layers have transposed weights."""
    if request.param != "gpt2":
        return EMBEDDED[request.param]
    save_tiny_gpt2(tmp_path / "gpt2", EXAMPLES)
    return tmp_path / "gpt2"


def adapted(folder: Path, lora: Lora = LORA, *, size: float = 0.0) -> Any:
    """Return a backbone with adapters; as new, or random ones of a size."""
    backbone = load_backbone(folder)
    add_adapters(backbone, lora, 0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in backbone.named_parameters():
            if size and ".lora_" in name:
                nn.init.normal_(parameter, std=size)
    return backbone


def scores(backbone: Any, folder: Path) -> Tensor:
    tokens, pad = tokens_of(folder, EXAMPLES)
    batch = batch_of(tokens, pad, rationale=True)
    with torch.no_grad():
        found: Tensor = backbone.eval()(batch).scores_BC[batch.choice_exists_BC]
    return found


def test_new_adapters_change_nothing_and_are_trained_alone(folder: Path) -> None:
    backbone, whole = adapted(folder), load_backbone(folder)
    assert torch.equal(scores(backbone, folder), scores(whole, folder))
    trained = {name: p.numel() for name, p in backbone.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or name.startswith(("head.", "score.")) for name in trained)
    assert sum(trained.values()) == adapters_size(model_config(folder, "model"), LORA)
    # Every layer of attention and feed-forward has one, the output head none.
    assert not any("lm_head" in name for name in trained)
    assert len(trained) >= 2 * 4 * whole.depth


def test_a_merged_model_scores_as_with_its_adapters(folder: Path, tmp_path: Path) -> None:
    backbone = adapted(folder, size=0.05)
    expected = scores(backbone, folder)
    assert float((expected - scores(load_backbone(folder), folder)).abs().max()) > 0.02
    plain = tmp_path / "merged"
    backbone.save(plain, merged(backbone, gathered_state(backbone)))
    load_tokenizer(folder, "model").save_pretrained(plain)
    names = {name for path in plain.glob("*.safetensors") for name in load_file(path)}
    assert not any("lora" in name or "base_layer" in name for name in names)
    torch.testing.assert_close(scores(load_backbone(plain), folder), expected, atol=1e-5, rtol=1e-5)


def test_weights_are_merged_as_peft_merges_them(folder: Path) -> None:
    backbone = adapted(folder, size=0.05)
    found = merged(backbone, gathered_state(backbone))
    layers = {n: m for n, m in backbone.named_modules() if isinstance(m, LoraLayer)}
    for name, layer in layers.items():
        layer.merge()
        torch.testing.assert_close(found[f"{name}.weight"], layer.base_layer.weight.data)


def engine_trained(folder: Path, stage: int, precision: str = "fp32") -> dict[str, Tensor]:
    """Train with an engine; return the merged weights. Some batches have no rationale."""
    tokens, pad = tokens_of(folder, EXAMPLES)
    backbone = adapted(folder)
    scale = Scale.model_validate({"zero_stage": stage, "precision": precision})
    with PlainContext():
        engine = start_engine(Objective(backbone), SETTINGS, scale, 1, STEPS)
        engine.eval()
        for step in range(STEPS):
            loss = engine(batch_of(tokens, pad, rationale=step % 2 == 0)).loss
            engine.backward(loss)
            engine.step()
        found = merged(backbone, gathered_state(backbone))
        engine.destroy()
    return found


def test_every_stage_trains_them_as_torch_alone(folder: Path) -> None:
    tokens, pad = tokens_of(folder, EXAMPLES)
    backbone = adapted(folder)
    objective = Objective(backbone).eval()
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=SETTINGS.learning_rate, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(0, STEPS))
    for step in range(STEPS):
        optimizer.zero_grad()
        objective(batch_of(tokens, pad, rationale=step % 2 == 0)).loss.backward()
        nn.utils.clip_grad_norm_(trained, SETTINGS.clip)
        optimizer.step()
        rates.step()
    expected = merged(backbone, gathered_state(backbone))
    begun = load_backbone(folder).state_dict()
    moved = {n for n, w in expected.items() if not torch.equal(w, begun[n])}
    assert 0 < len(moved) < len(expected)
    for stage in (0, 1, 2):
        found = engine_trained(folder, stage)
        assert set(found) == set(expected)
        # What is added to all scores alike has a gradient of rounding errors alone.
        for name in found.keys() - {"score.bias"}:
            tensor = found[name]
            torch.testing.assert_close(tensor, expected[name], atol=2e-4, rtol=0)
            assert name in moved or torch.equal(tensor, begun[name])


def test_in_bf16_weights_are_merged_without_rounding() -> None:
    folder = EMBEDDED["tiny-llama"]
    exact, found = engine_trained(folder, 0), engine_trained(folder, 0, "bf16")
    name = "model.model.layers.0.self_attn.q_proj.weight"
    assert found[name].dtype == torch.float32
    assert not torch.equal(found[name], found[name].bfloat16().float())
    torch.testing.assert_close(found[name], exact[name], atol=3e-2, rtol=0)


def test_checkpointed_activations_change_no_loss(folder: Path) -> None:
    tokens, pad = tokens_of(folder, EXAMPLES)
    batch, found = batch_of(tokens, pad, rationale=True), []
    for checkpointing in (False, True):
        backbone = adapted(folder, size=0.05)
        objective = Objective(scaled(backbone, Scale(gradient_checkpointing=checkpointing)))
        # Dropout is set apart: in training mode, as checkpointing demands, both would draw some.
        for module in objective.train().modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        loss = objective(batch).loss
        loss.backward()
        gradients = [p.grad for p in objective.parameters() if p.requires_grad]
        assert all(gradient is not None for gradient in gradients)
        found.append((float(loss), [float(g.norm()) for g in gradients if g is not None]))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_stop_and_resume_is_an_uninterrupted_training(
    context: PlainContext, tmp_path: Path, zero_stage: int
) -> None:
    training = TRAINING.model_copy(update={"lora": Lora(rank=4, dropout=0.1)})
    folder = EMBEDDED["tiny-bert"]
    student = Student(folder, training, checkpoint_steps=3, zero_stage=zero_stage)
    whole = student.train(tmp_path / "whole", context)
    with pytest.raises(KilledError):
        student.train(tmp_path / "cut", context, fail_at=6)
    (step,) = (tmp_path / "cut" / "checkpoints").glob("step-*")
    state = torch.load(step / "mp_rank_00_model_states.pt", weights_only=False)["module"]
    # Frozen weights are not written again and again.
    trained = {n for n, p in student.backbone.named_parameters() if p.requires_grad}
    assert {name.removeprefix("backbone.") for name in state} == trained
    assert student.train(tmp_path / "cut", context) == whole
    assert same_weights(tmp_path / "cut", tmp_path / "whole")
    begun = load_file(next(folder.glob("*.safetensors")))
    found = weights(tmp_path / "whole")
    changed = [name for name, tensor in begun.items() if not torch.equal(tensor, found[name])]
    assert changed
    assert all(name.endswith(".weight") for name in changed)
    assert not any("embeddings" in name or "LayerNorm" in name for name in changed)


def test_a_run_with_adapters_for_teacher_and_student(tmp_path: Path) -> None:
    """Its teacher and students are plain folders, which everything else reads."""
    run = made(
        small_config(
            tmp_path,
            methods=["finetune", "knife", "teacher_init"],
            teacher={"lora": {"rank": 4}},
            student={"lora": {"rank": 2, "targets": ["q", "v"]}},
        )
    )
    begun = load_file(EMBEDDED["tiny-t5"] / "model.safetensors")
    for stage in (run.plan.teacher, *(member.student for member in run.plan.members)):
        assert stage
        folder = run.store.path(stage.kind, stage.key) / "model"
        found = load_file(folder / "model.safetensors")
        assert set(found) == set(begun)
        assert not (folder / "adapter_config.json").exists()
        load_backbone(folder)
    finetuned = run.store.path("student", run.plan.members[0].student.key) / "model"
    for name, tensor in load_file(finetuned / "model.safetensors").items():
        assert torch.equal(tensor, begun[name]) != (".q." in name or ".v." in name)


def test_keys_cover_adapters_only_where_there_are_any(tmp_path: Path) -> None:
    assert METHOD_VERSION == 4
    keys = []
    for lora in (None, {"rank": 8}, {"rank": 8, "alpha": 32}, {"rank": 4}):
        plan = plan_run(small_config(tmp_path, methods=["finetune"], student={"lora": lora}))
        (member,) = plan.members
        keys.append(member.student.key)
        training = member.student.depends["training"]
        # Those without are the keys of stores that an earlier version made.
        assert ("lora" in training) == ("peft" in training) == (lora is not None)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        (
            {"student": {"lora": {"targets": ["q", "wrong"]}}},
            "student.lora: targets: no linear layer's name ends with 'wrong'; there are k, o, q, "
            "v, wi, wo",
        ),
        (
            {"teacher": {"lora": {}}, "scale": {"zero_stage": 3}},
            "scale.zero_stage: 3 does not go with teacher.lora, whose adapters are merged into "
            "whole weights; set it to 2",
        ),
        (
            {"student": {"lora": {"targets": ["q", "q"]}}},
            "student.lora.targets: must be different names of layers, but got 'q'",
        ),
        ({"student": {"lora": {"rank": 0}}}, "student.lora.rank: "),
    ],
    ids=["unknown", "zero-3", "twice", "rank"],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], error: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        plan_run(small_config(tmp_path, **changes))
    assert len(refused.value.errors) == 1
    assert refused.value.errors[0].startswith(error)


def test_without_peft_what_to_install_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"student.lora: needs the package peft.*knife\[lora\]"):
        plan_run(small_config(tmp_path, student={"lora": {}}))


def test_a_kind_of_model_with_adapters_is_tried(tmp_path: Path) -> None:
    save_tiny_gpt2(tmp_path, EXAMPLES)
    config, tokenizer = model_config(tmp_path, "model"), load_tokenizer(tmp_path, "model")
    assert adapters_test(config, tokenizer, LORA) == []


def test_dropout_of_adapters_and_layers_by_number_pass_the_trial() -> None:
    """The small model that is tried has two layers."""
    config = LlamaConfig(
        vocab_size=300, hidden_size=256, intermediate_size=512, num_hidden_layers=5,
        num_attention_heads=4, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    tokenizer = load_tokenizer(EMBEDDED["tiny-llama"], "model")
    lora = Lora(rank=4, dropout=0.5, targets=("layers.4.self_attn.q_proj",))
    assert adapters_size(config, lora) == 2 * 4 * 256
    assert adapters_test(config, tokenizer, lora) == []


@pytest.mark.parametrize("kind", ["led", "t5gemma2"])
def test_frozen_parts_have_no_adapters(kind: str, tmp_path: Path) -> None:
    folder = save_seq2seq(kind, tmp_path, EXAMPLES)
    backbone = adapted(folder)
    trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert trained == adapters_size(model_config(folder, "model"), LORA)
    assert torch.isfinite(scores(backbone, folder)).all()


def test_wrongly_merged_adapters_fail_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny_gpt2(tmp_path, EXAMPLES)
    config, tokenizer = model_config(tmp_path, "model"), load_tokenizer(tmp_path, "model")

    def unscaled(backbone: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
        for module in backbone.modules():
            if isinstance(module, LoraLayer):
                module.scaling = {"default": 1.0}
        return merged(backbone, state)

    monkeypatch.setattr("knife.models.self_test.merged", unscaled)
    (failure,) = adapters_test(config, tokenizer, LORA)
    assert failure.startswith("scores change when its adapters are merged")


@pytest.mark.parametrize(("precision", "stage"), [("fp32", 0), ("fp32", 2), ("bf16", 0)])
def test_the_peak_of_a_worker_is_the_formulas(
    precision: str, stage: int, context: PlainContext, tmp_path: Path
) -> None:
    folder = EMBEDDED["tiny-llama"]
    config = LlamaConfig(
        vocab_size=2000, hidden_size=128, intermediate_size=512, num_hidden_layers=2,
        num_attention_heads=4, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    load_tokenizer(folder, "model").save_pretrained(tmp_path)
    tokens = [Tokens([*range(3, 50), 1], [], [[5, 6, 1]] * 2, [(0, 1)] * 2, 0)]
    batch = collate(tokens * 4, Rows(list(range(4)), [1.0] * 4), 0, False)
    scale = Scale.model_validate({"zero_stage": stage, "precision": precision})
    found = measure(tmp_path, scale, batch, context, lora=LORA)
    known, size = model_config(tmp_path, "model"), model_size(config, tmp_path)
    assert size
    count = adapters_size(known, LORA)
    lengths = Lengths(48, 48, 2, 3, 0, 0, 0, 0)
    training = Training(batch_size=4, lora=LORA)
    need = training_need(size, training, scale, lengths, rationale=False, adapters=count)
    whole = training_need(size, training, scale, lengths, rationale=False)
    assert (need.parameters, need.trained) == (size.parameters + count, count)
    assert found.rest == pytest.approx(need.weights + need.optimizer, rel=1e-2)
    # The backward pass in bf16 has temporary fp32 tensors on a CPU, which the formula leaves out.
    assert 0.85 < found.peak / need.peak < (1.2 if precision == "fp32" else 1.3)
    assert need.peak < 0.6 * whole.peak
