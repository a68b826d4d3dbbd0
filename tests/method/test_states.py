"""Teacher states: computed by the stage that stores them, and read as in a student's training."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from small import EXAMPLES, batch_of, publish_examples, tokens_of
from torch import Tensor

from knife.config.run import Align, InputAlignment, OutputAlignment
from knife.config.scale import Scale
from knife.data.batches import collate, evaluation_rows, training_rows
from knife.method.objective import Alignment, Objective
from knife.method.states import (
    Moments,
    OnlineTeacher,
    StoredPart,
    StoredStates,
    Summary,
    example_states,
    shard_moments,
    write_shard,
)
from knife.method.states_parts import StatesPart, parts_read
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
    "words": Align(input=InputAlignment(tokens="words")),
    "states": Align(output=OutputAlignment(weight=0.5)),
    "choices": Align(output=OutputAlignment(weight=0.5, target="choices")),
}


@pytest.fixture(scope="module")
def store(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store with data and a teacher whose weights are shifted, unlike any student's."""
    store = Store(tmp_path_factory.mktemp("store"))
    publish_examples(store, model_folder, EXAMPLES)
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


def compute(
    store: Store,
    folder: Path,
    context: PlainContext,
    parts: Sequence[StatesPart],
    **changes: Any,
) -> dict[StatesPart, Path]:
    """Compute parts of the states of the store's teacher, each into a separate folder."""
    stages, places, folders = [], [], {}
    for part in parts:
        values: dict[str, Any] = {
            "key": "s", "depends": {}, "label": f"states, {part}", "data": "d", "tokens": "k",
            "max_tokens": 256,
            "teacher": "t", "precision": "fp32", "stored": True,
        }  # fmt: skip
        stages.append(StatesStage(part=part, **values | changes))
        folders[part] = folder / str(part)
        folders[part].mkdir(parents=True, exist_ok=True)
        places.append(StageContext(store, folders[part], Scale(), context))
    compute_states(stages, places)
    return folders


def stored(
    store: Store,
    folder: Path,
    context: PlainContext,
    parts: Sequence[StatesPart],
    **changes: Any,
) -> StoredStates:
    """Compute the states and open them."""
    return StoredStates(compute(store, folder, context, parts, **changes))


def files(folder: Path) -> dict[str, bytes]:
    """Return the shards and the summary of a part."""
    paths = [*folder.glob("shard-*"), folder / "states.json"]
    return {path.name: path.read_bytes() for path in paths}


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
    states = stored(store, tmp_path, context, parts_read(align, layers))
    variance = {layer: states.parts[layer].summary.variance for layer in layers}
    widths = (teacher.width, teacher.output_width)
    settings = Alignment(align, tuple(pairs), *widths, variance)
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
    exact = stored(store, tmp_path / "a", context, [2]).batch(batch)
    half = stored(store, tmp_path / "b", context, [2], precision="bf16").batch(batch)
    assert half.input_states[2].dtype == torch.bfloat16
    torch.testing.assert_close(
        half.input_states[2].float(), exact.input_states[2], rtol=2**-8, atol=1e-6
    )
    assert not torch.equal(half.input_states[2].float(), exact.input_states[2])


def test_reads_in_any_order_over_many_shards(
    store: Store,
    context: PlainContext,
    tmp_path: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts: list[StatesPart] = [1, 2, "scores"]
    one = stored(store, tmp_path / "one", context, parts)
    monkeypatch.setattr(states_stage, "SHARD_BYTES", 10_000)
    many = stored(store, tmp_path / "many", context, parts)
    for part in parts:
        shards = list((tmp_path / "many" / str(part)).glob("shard-*.safetensors"))
        few = list((tmp_path / "one" / str(part)).glob("shard-*.safetensors"))
        assert len(few) < len(shards) < len(EXAMPLES)
        assert len(many.parts[part]) == len(EXAMPLES)
        variances = [states.parts[part].summary.variance for states in (one, many)]
        assert variances[0] == pytest.approx(variances[1])
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
            assert some.scores_BC is not None
            assert in_order.scores_BC is not None
            expected = in_order.scores_BC[rows][:, : exists.shape[1]]
            torch.testing.assert_close(some.scores_BC[exists], expected[exists])


def test_each_part_has_what_one_pass_over_the_data_finds(
    store: Store, context: PlainContext, tmp_path: Path, model_folder: Path
) -> None:
    """Bit by bit: computed alone, with other parts, and by a pass in this test."""
    parts: list[StatesPart] = [1, 2, "output", "scores"]
    together = compute(store, tmp_path / "together", context, parts)
    for part in parts:
        alone = compute(store, tmp_path / "alone", context, [part])
        assert files(alone[part]) == files(together[part])
    tokens, pad = tokens_of(model_folder, EXAMPLES)
    teacher = load_published(store.path("teacher", "t") / "model").eval()
    for path in sorted(together[1].glob("shard-*")):
        with safe_open(path, framework="pt") as file:
            rows = file.get_tensor("rows").tolist()
        some = [tokens[row] for row in rows]
        lengths = [len(each.input_ids) + len(each.rationale_ids) for each in some]
        # A shard is one batch here.
        (batch_rows,) = evaluation_rows(lengths, len(rows))
        batch = collate(some, batch_rows, pad, True)
        with torch.no_grad():
            output = teacher(batch, [1, 2])
        for part in parts:
            flat, counts = StoredPart(together[part]).read(torch.tensor(rows))
            for place, states in enumerate(torch.split(flat, counts.tolist())):
                b = batch_rows.rows.index(place)
                if part == "output":
                    own = output.output_states_BCTH[b][output.output_mask_BCT[b].bool()]
                elif part == "scores":
                    own = output.scores_BC[b][batch.choice_exists_BC[b]]
                else:
                    own = output.input_states[part][b, : len(some[place].input_ids)]
                assert torch.equal(states, own)


def test_parts_that_are_missing_take_one_pass(
    store: Store, context: PlainContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher reads each example once, for any number of missing parts."""
    read: list[int] = []

    def noting(tokens: Any, rows: Any, *arguments: Any) -> Any:
        read.append(len(set(rows.rows)))
        return collate(tokens, rows, *arguments)

    monkeypatch.setattr(states_stage, "collate", noting)
    compute(store, tmp_path, context, [1, 2, "output", "scores"])
    assert sum(read) == len(EXAMPLES)
    compute(store, tmp_path, context, [1, 2, "output", "scores"])
    assert sum(read) == len(EXAMPLES)


def test_an_interrupted_try_is_gone_on_with(
    store: Store, context: PlainContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished shards are kept, also if the next try makes other parts, and every file is that of
    an uninterrupted try."""
    monkeypatch.setattr(states_stage, "SHARD_BYTES", 6000)
    parts: list[StatesPart] = [1, 2, "scores"]
    whole = compute(store, tmp_path / "whole", context, parts)
    written: list[Path] = []

    def write_four(path: Path, *arguments: Any, **settings: Any) -> Moments:
        if len(written) == 4:
            raise KeyboardInterrupt
        moments = write_shard(path, *arguments, **settings)
        written.append(path)
        return moments

    with monkeypatch.context() as patch:
        patch.setattr(states_stage, "write_shard", write_four)
        with pytest.raises(KeyboardInterrupt):
            compute(store, tmp_path / "cut", context, [1, 2])
    # Two of each part.
    assert len({path.parent for path in written}) == 2
    assert len({path.name for path in written}) == 2
    stamps = [path.stat().st_mtime_ns for path in written]
    again = compute(store, tmp_path / "cut", context, parts)
    assert [path.stat().st_mtime_ns for path in written] == stamps
    for part in parts:
        assert files(again[part]) == files(whole[part])
        names = {path.name for path in whole[part].iterdir()}
        assert {path.name for path in again[part].iterdir()} == names


def test_stored_states_of_longer_choices_are_refused(
    store: Store, model_folder: Path, context: PlainContext, tmp_path: Path
) -> None:
    if not can_generate(model_config(model_folder, "model")):
        pytest.skip("an encoder has one state per choice, of any length")
    states = stored(store, tmp_path, context, ["output"])
    tokens, pad = tokens_of(model_folder, EXAMPLES)
    longer = [replace(t, choice_ids=[[*ids, ids[-1]] for ids in t.choice_ids]) for t in tokens]
    rows = training_rows([len(t.input_ids) for t in tokens], 8, 0, 0)[0]
    with pytest.raises(ValueError, match="other choices than the batch"):
        states.batch(collate(longer, rows, pad, False))


def test_stored_states_of_other_task_inputs_are_refused(
    store: Store, model_folder: Path, context: PlainContext, tmp_path: Path
) -> None:
    """Also if all examples of a batch together have as many tokens as there are states."""
    states = stored(store, tmp_path, context, [2])
    tokens, pad = tokens_of(model_folder, EXAMPLES)
    first, second = tokens[0], tokens[1]
    swapped = [
        replace(first, input_ids=[*first.input_ids, first.input_ids[-1]]),
        replace(second, input_ids=second.input_ids[:-1]),
    ]
    assert states.batch(batch_of([first, second], pad, rationale=False)).input_states
    with pytest.raises(ValueError, match="other task inputs than the batch"):
        states.batch(batch_of(swapped, pad, rationale=False))


def test_an_online_teacher_needs_the_variance_alone(
    store: Store, context: PlainContext, tmp_path: Path
) -> None:
    kept = compute(store, tmp_path / "kept", context, [2])[2]
    online = compute(store, tmp_path / "online", context, [2], stored=False)[2]
    assert Summary.read(online) == replace(Summary.read(kept), stored=False)
    assert Summary.read(kept).variance > 0
    assert not list(online.glob("shard*"))


def test_what_students_read() -> None:
    def read(
        weight: float, output: float, target: Any = "states", distance: Any = "scaled_mse"
    ) -> list[list[StatesPart]]:
        """With stored states, and with an online teacher."""
        return [
            parts_read(
                Align(
                    input=InputAlignment(weight=weight, distance=distance),
                    output=OutputAlignment(weight=output, target=target),
                    states=states,
                ),
                [3, 1, 3] if weight else [],
            )
            for states in ("stored", "online")
        ]

    assert read(30, 0) == [[1, 3], [1, 3]]
    assert read(30, 1) == [[1, 3, "output"], [1, 3]]
    assert read(30, 1, "choices") == [[1, 3, "scores"], [1, 3]]
    assert read(0, 1) == [["output"], []]
    assert read(0, 1, "choices") == [["scores"], []]
    # Only `scaled_mse` reads an online teacher's variance.
    assert read(30, 0, distance="mse") == [[1, 3], []]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_files_are_hardly_larger_than_the_states(tmp_path: Path, precision: Any) -> None:
    """The sizes of a small real model: a layer of 256, about 60 task-input tokens each."""
    generator = random.Random(0)
    tokens = [generator.randint(20, 100) for _ in range(300)]
    states = [torch.zeros(n, 256) for n in tokens]
    for start in (0, 150):
        rows = range(start, start + 150)
        path = tmp_path / f"shard-{start:05d}.safetensors"
        write_shard(path, rows, states[start : start + 150], precision)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    product = sum(tokens) * 256 * (4 if precision == "fp32" else 2)
    assert product < size < 1.02 * product
    Summary(256, precision, 0.0, True).write(tmp_path)
    assert len(StoredPart(tmp_path)) == 300


def test_a_shard_says_where_its_examples_are(
    store: Store, context: PlainContext, tmp_path: Path, model_folder: Path
) -> None:
    """The format in the module's docstring, read without the reader."""
    folders = compute(store, tmp_path, context, [2, "scores"])
    tokens, _ = tokens_of(model_folder, EXAMPLES)
    seen: list[int] = []
    for path in sorted(folders[2].glob("shard-*.safetensors")):
        with safe_open(path, framework="pt") as file:
            rows = file.get_tensor("rows").tolist()
            lengths = file.get_tensor("end").diff(prepend=torch.tensor([0])).tolist()
        with safe_open(folders["scores"] / path.name, framework="pt") as file:
            choices = file.get_tensor("end").diff(prepend=torch.tensor([0])).tolist()
            # All parts have the same shards.
            assert file.get_tensor("rows").tolist() == rows
        assert lengths == [len(tokens[row].input_ids) for row in rows]
        assert choices == [len(tokens[row].choice_ids) for row in rows]
        seen += rows
    assert seen == list(range(len(EXAMPLES)))


def test_moments_are_torchs_variance(tmp_path: Path) -> None:
    torch.manual_seed(0)
    states = [5 * torch.randn(n, 16) + 3 for n in (4, 9, 1)]
    moments = write_shard(tmp_path / "shard", [0, 1, 2], states, "bf16")
    assert shard_moments(tmp_path / "shard") == moments
    assert moments.count == 14 * 16
    merged = Moments.merged(Moments.of(each) for each in states)
    for found in (moments, merged, Moments.of(torch.cat(states))):
        expected = float(torch.cat(states).double().var(correction=0))
        assert found.variance() == pytest.approx(expected, rel=1e-12)


def test_an_examples_states_are_cut_out_without_padding(model_folder: Path) -> None:
    backbone = load_backbone(model_folder).eval()
    tokens, pad = tokens_of(model_folder, EXAMPLES)
    batch = batch_of(tokens, pad, rationale=True)
    with torch.no_grad():
        output = backbone(batch, [1, 2])
    parts: list[dict[StatesPart, Tensor]] = example_states(
        output, [1, 2, "output", "scores"], batch
    )
    for row, part in enumerate(parts):
        own = len(tokens[row].input_ids)
        for layer in (1, 2):
            assert part[layer].shape == (own, backbone.width)
            assert torch.equal(part[layer], output.input_states[layer][row, :own])
        assert len(part["scores"]) == len(tokens[row].choice_ids)
        assert len(part["output"]) == int(output.output_mask_BCT[row].sum())
