"""Teacher states: computed by the stage that stores them, and read as in a student's training."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from small import EXAMPLES, batch_of, tokens_of
from torch import Tensor

from knife.config.run import Align, InputAlignment, OutputAlignment, Scale
from knife.data.batches import collate, training_rows
from knife.data.jsonl import write_examples
from knife.method.objective import Alignment, Objective
from knife.method.states import (
    Moments,
    OnlineTeacher,
    StoredStates,
    Summary,
    example_states,
    write_shard,
)
from knife.models.load import load_backbone
from knife.models.tokenizer import can_generate, load_tokenizer, model_config
from knife.plan.stage import StatesStage
from knife.store.store import Store
from knife.train import states as states_stage
from knife.train.context import PlainContext
from knife.train.engine import gathered_state
from knife.train.model_settings import ModelSettings
from knife.train.stage_context import StageContext, load_published
from knife.train.states import compute_states

TARGETS: dict[str, Align] = {
    "input": Align(),
    "all layers": Align(input=InputAlignment(layers="all", distance="cosine")),
    "states": Align(output=OutputAlignment(weight=0.5)),
    "choices": Align(output=OutputAlignment(weight=0.5, target="choices")),
}


@pytest.fixture(scope="module")
def store(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store with data and a teacher whose weights are shifted, unlike any student's."""
    store = Store(tmp_path_factory.mktemp("store"))
    data = store.work("data", "d")
    for name in ("train", "dev", "test"):
        write_examples(data / f"{name}.jsonl", EXAMPLES)
    store.publish("data", "d", {})
    backbone = load_backbone(model_folder, seed=3)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    work = store.work("teacher", "t")
    backbone.save(work / "model", gathered_state(backbone))
    load_tokenizer(model_folder, "model").save_pretrained(work / "model")
    ModelSettings(rationale=True, bottleneck=True, max_tokens=256).write(work / "model")
    store.publish("teacher", "t", {})
    return store


@pytest.fixture(scope="module")
def context() -> Iterator[PlainContext]:
    with PlainContext() as context:
        yield context


def compute(store: Store, work: Path, context: PlainContext, **changes: Any) -> Summary:
    """Compute the states of the store's teacher into `work`."""
    stage = StatesStage(
        key="s",
        depends={},
        label="states",
        data="d",
        max_tokens=256,
        teacher="t",
        layers=(2,),
        outputs=True,
        precision="fp32",
        stored=True,
    )
    work.mkdir(exist_ok=True)
    compute_states(replace(stage, **changes), StageContext(store, work, Scale(), context))
    return Summary.read(work)


def stored(store: Store, work: Path, context: PlainContext, **changes: Any) -> StoredStates:
    """Compute the states and open them."""
    compute(store, work, context, **changes)
    return StoredStates(work)


@pytest.mark.parametrize("name", TARGETS)
def test_stored_and_online_teacher_give_the_same_loss(
    store: Store, model_folder: Path, context: PlainContext, tmp_path: Path, name: str
) -> None:
    align = TARGETS[name]
    student = load_backbone(model_folder)
    teacher = load_published(store.path("teacher", "t") / "model")
    pairs = [(layer, layer) for layer in range(1, teacher.depth + 1)]
    pairs = pairs if align.input.layers == "all" else pairs[-1:]
    layers = tuple(layer for _, layer in pairs)
    outputs = align.output.weight > 0 and align.output.target == "states"
    states = stored(store, tmp_path, context, layers=layers, outputs=outputs)
    assert ("output" in states._shards[0]) == outputs
    summary = states.summary
    settings = Alignment(align, tuple(pairs), summary.width, summary.output_width, summary.variance)
    objective = Objective(student, settings).eval()
    tokens, pad = tokens_of(model_folder, EXAMPLES)
    online = OnlineTeacher(teacher, layers)
    with torch.no_grad():
        for rows in training_rows([len(t.input_ids) for t in tokens], 8, 0, 0):
            batch = collate(tokens, rows, pad, False)
            one = objective(batch, states.batch(batch))
            other = objective(batch, online.batch(collate(tokens, rows, pad, True)))
            for part, value in one.parts.items():
                assert float(value) == pytest.approx(float(other.parts[part]), rel=1e-6, abs=1e-6)
            assert float(one.loss) != float(one.parts["task_loss"])


def test_states_in_bf16_are_near(
    store: Store, context: PlainContext, tmp_path: Path, model_folder: Path
) -> None:
    tokens, pad = tokens_of(model_folder, EXAMPLES)
    batch = batch_of(tokens, pad, rationale=False)
    exact = stored(store, tmp_path / "a", context).batch(batch)
    half = stored(store, tmp_path / "b", context, precision="bf16").batch(batch)
    assert half.input_states[2].dtype == torch.bfloat16
    torch.testing.assert_close(
        half.input_states[2].float(), exact.input_states[2], rtol=2**-8, atol=1e-6
    )
    assert not torch.equal(half.input_states[2].float(), exact.input_states[2])
    # Scores are few and keep their precision.
    assert torch.equal(half.scores_BC, exact.scores_BC)


def test_reads_in_any_order_over_many_shards(
    store: Store,
    context: PlainContext,
    tmp_path: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = stored(store, tmp_path / "one", context, layers=(1, 2))
    monkeypatch.setattr(states_stage, "SHARD_BYTES", 20_000)
    many = stored(store, tmp_path / "many", context, layers=(1, 2))
    shards = list((tmp_path / "many").glob("shard-*.safetensors"))
    assert len(shards) > len(list((tmp_path / "one").glob("shard-*.safetensors")))
    assert len(shards) < len(EXAMPLES)
    assert len(many) == len(EXAMPLES)
    assert many.summary.tokens == one.summary.tokens
    assert many.summary.variance == pytest.approx(one.summary.variance)
    tokens, pad = tokens_of(model_folder, EXAMPLES)
    in_order = many.batch(batch_of(tokens, pad, rationale=False))
    order = random.Random(0)
    for _ in range(5):
        rows = order.choices(range(len(tokens)), k=7)
        batch = batch_of(tokens, pad, rationale=False, rows=rows)
        for states in (one, many):
            some = states.batch(batch)
            columns = batch.ids_BL.shape[1]
            for layer in (1, 2):
                expected = in_order.input_states[layer][rows, :columns]
                torch.testing.assert_close(some.input_states[layer], expected)
            exists = batch.choice_exists_BC
            expected = in_order.scores_BC[rows][:, : exists.shape[1]]
            torch.testing.assert_close(some.scores_BC[exists], expected[exists])


def test_an_interrupted_try_is_gone_on_with(
    store: Store, context: PlainContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished shards are kept, and the summary is that of an uninterrupted try."""
    monkeypatch.setattr(states_stage, "SHARD_BYTES", 6000)
    whole = stored(store, tmp_path / "whole", context)
    written: list[Path] = []

    def write_three(path: Path, *arguments: Any) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        write_shard(path, *arguments)
        written.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(states_stage, "write_shard", write_three)
        with pytest.raises(KeyboardInterrupt):
            stored(store, tmp_path / "cut", context)
    assert len(written) == 3
    stamps = [path.stat().st_mtime_ns for path in written]
    again = stored(store, tmp_path / "cut", context)
    assert [path.stat().st_mtime_ns for path in written] == stamps
    assert again.summary == whole.summary
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "cut").iterdir()} == names
    for name in names:
        if name.startswith("shard"):
            cut, kept = (tmp_path / folder / name for folder in ("cut", "whole"))
            assert cut.read_bytes() == kept.read_bytes()


def test_stored_states_of_longer_choices_are_refused(
    store: Store, model_folder: Path, context: PlainContext, tmp_path: Path
) -> None:
    if not can_generate(model_config(model_folder, "model")):
        pytest.skip("an encoder has one state per choice, of any length")
    states = stored(store, tmp_path, context, outputs=True)
    tokens, pad = tokens_of(model_folder, EXAMPLES)
    longer = [replace(t, choice_ids=[[*ids, ids[-1]] for ids in t.choice_ids]) for t in tokens]
    rows = training_rows([len(t.input_ids) for t in tokens], 8, 0, 0)[0]
    with pytest.raises(ValueError, match="other choices than the batch"):
        states.batch(collate(longer, rows, pad, False))


def test_an_online_teacher_needs_the_variance_alone(
    store: Store, context: PlainContext, tmp_path: Path
) -> None:
    kept = compute(store, tmp_path / "kept", context)
    online = compute(store, tmp_path / "online", context, stored=False)
    assert online == replace(kept, stored=False)
    assert not list((tmp_path / "online").glob("shard*"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_files_are_hardly_larger_than_the_states(tmp_path: Path, precision: Any) -> None:
    """The sizes of a small real model: two layers of 256, about 60 task-input tokens each."""
    generator = random.Random(0)
    tokens = [generator.randint(20, 100) for _ in range(300)]
    parts = [{"input": torch.zeros(n, 2, 256), "scores": torch.zeros(4)} for n in tokens]
    summary = Summary([5, 6], 256, 256, False, precision, {}, 0, True)
    for start in (0, 150):
        rows = range(start, start + 150)
        path = tmp_path / f"shard-{start:05d}.safetensors"
        write_shard(path, list(rows), parts[start : start + 150], summary)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    states = sum(tokens) * 2 * 256 * (4 if precision == "fp32" else 2)
    assert states < size < 1.02 * states
    summary.write(tmp_path)
    assert len(StoredStates(tmp_path)) == 300


def test_a_shard_says_where_its_examples_are(
    store: Store, context: PlainContext, tmp_path: Path, model_folder: Path
) -> None:
    """The format in the module's docstring, read without the reader."""
    stored(store, tmp_path, context)
    tokens, _ = tokens_of(model_folder, EXAMPLES)
    seen: list[int] = []
    for path in sorted(tmp_path.glob("shard-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            rows = file.get_tensor("rows").tolist()
            lengths = file.get_tensor("input_end").diff(prepend=torch.tensor([0])).tolist()
            choices = file.get_tensor("scores_end").diff(prepend=torch.tensor([0])).tolist()
        assert lengths == [len(tokens[row].input_ids) for row in rows]
        assert choices == [len(tokens[row].choice_ids) for row in rows]
        seen += rows
    assert seen == list(range(len(EXAMPLES)))


def test_moments_are_torchs_variance() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(n, 2, 16) * torch.tensor([1.0, 5.0])[:, None] + 3 for n in (4, 9, 1)]
    moments, other = Moments([2, 7]), Moments([2, 7])
    moments.add(parts[0])
    other.add(parts[1])
    other.add(parts[2])
    moments.merge(other)
    whole = torch.cat(parts).double()
    assert moments.tokens == 14
    for number, layer in enumerate(("2", "7")):
        expected = float(whole[:, number].var(correction=0))
        assert moments.variance()[layer] == pytest.approx(expected, rel=1e-12)


def test_an_examples_states_are_cut_out_without_padding(model_folder: Path) -> None:
    backbone = load_backbone(model_folder).eval()
    tokens, pad = tokens_of(model_folder, EXAMPLES)
    batch = batch_of(tokens, pad, rationale=True)
    with torch.no_grad():
        output = backbone(batch, [1, 2])
    parts: list[dict[str, Tensor]] = example_states(output, [1, 2], batch)
    for row, part in enumerate(parts):
        own = len(tokens[row].input_ids)
        assert part["input"].shape == (own, 2, backbone.width)
        assert torch.equal(part["input"][:, 0], output.input_states[1][row, :own])
        assert torch.equal(part["input"][:, 1], output.input_states[2][row, :own])
        assert len(part["scores"]) == len(tokens[row].choice_ids)
        assert len(part["output"]) == int(output.output_mask_BCT[row].sum())
