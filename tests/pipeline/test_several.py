"""Several rationales of one question: each epoch draws one, and states are the mean over all."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pair import Pair, in_pair, make
from small import EXAMPLES, tokens_of
from small_run import small_config
from student import KilledError, Student, rows, same_weights

from knife.config.run import RunConfig, World
from knife.core.errors import UserError
from knife.data import batches
from knife.data.check import check
from knife.data.creatures import creatures
from knife.data.digest import digests
from knife.data.example import Example
from knife.data.examples import Examples
from knife.data.jsonl import read_examples, write_examples
from knife.data.several import Drawn, more_of_train
from knife.data.source import load_source
from knife.data.tokens import Tokens
from knife.data.treatment import corrupt
from knife.method.alignment import Distance, state_distance
from knife.method.states import StoredStates
from knife.models.source import EMBEDDED
from knife.plan.plan import plan_run
from knife.plan.stage import StatesStage
from knife.store.store import Store
from knife.train import loop
from knife.train.context import PlainContext
from knife.train.stage_context import StageContext, load_published
from knife.train.states import _states

WORLD = World(train=40, dev=20, test=20)


@pytest.fixture(autouse=True)
def context() -> Iterator[PlainContext]:
    with PlainContext() as context:
        yield context


@pytest.fixture
def tiny_t5() -> Path:
    return EMBEDDED["tiny-t5"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write questions of which every second has three rationales, and every eighth none."""
    folder = tmp_path_factory.mktemp("several")
    splits = creatures(WORLD)
    train = [
        replace(each, more_rationales=(f"look : {each.rationale}", "a short one .")[: n % 2 * 2])
        if n % 8
        else replace(each, rationale=None)
        for n, each in enumerate(splits.train)
    ]
    for name, part in {"train": train, "dev": splits.dev, "test": splits.test}.items():
        write_examples(folder / f"{name}.jsonl", part)
    return folder


def config(source: Path, store: Path, **changes: Any) -> RunConfig:
    return small_config(store, data={"source": str(source)}, **changes)


def test_they_are_read_and_written(source: Path, tmp_path: Path) -> None:
    examples = read_examples(source / "train.jsonl")
    assert examples[1].more_rationales[1] == "a short one ."
    assert examples[2].more_rationales == ()
    table = Examples.of(examples)
    assert list(table) == examples
    assert table.most_rationales == 3
    table.write(tmp_path / "train.arrow")
    assert list(Examples.open(tmp_path / "train.arrow")) == examples
    assert list(Examples.joined([table, Examples.of(creatures(WORLD).dev)]))[:40] == examples
    # Where nobody has several, nothing is written about it.
    plain = Examples.of(creatures(WORLD).dev)
    plain.write(tmp_path / "dev.arrow")
    assert "more_rationales" not in Examples.open(tmp_path / "dev.arrow").table.column_names
    assert plain.most_rationales == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"more_rationales": "one text"}, "more_rationales: must be a list of texts"),
        ({"more_rationales": ["one", " "]}, "more_rationales: must be a list of texts"),
        ({"more_rationales": ["one"], "rationale": None}, "more_rationales: are given, but ration"),
    ],
)
def test_faults_are_told(tmp_path: Path, given: dict[str, object], said: str) -> None:
    row = {"id": "1", "question": "q ?", "choices": ["a", "b"], "answer": "a", "rationale": "r"}
    (tmp_path / "train.jsonl").write_text(json.dumps(row | given) + "\n")
    with pytest.raises(UserError, match=said):
        read_examples(tmp_path / "train.jsonl")


def test_each_is_tokenized_and_those_who_have_fewer_begin_again() -> None:
    one = Example("1", "q ?", ("a", "b"), 0, "r", None, ("s", "t"))
    two, none = replace(one, id="2", more_rationales=()), Example("3", "q ?", ("a", "b"), 0)
    found = more_of_train([one, two, none])
    assert {name: list(e.values("rationale")) for name, e in found.items()} == {
        "train-1": ["s", "r", None],
        "train-2": ["t", "r", None],
    }
    assert more_of_train([two, none]) == {}


def test_the_digest_knows_them() -> None:
    one = Example("1", "q ?", ("a", "b"), 0, "r")
    several = replace(one, more_rationales=("s",))
    assert digests([one])[0] == digests([several])[0]
    assert digests([one])[1] != digests([several])[1]


def test_treatments_leave_the_first_alone() -> None:
    some = [Example(str(n), "q ?", ("a", "b"), 0, f"r {n}", None, ("s",)) for n in range(4)]
    assert list(corrupt(some, "given", 0)) == some
    for treatment in ("shuffled", "dropped:0.5", "truncated:0.5", "none"):
        assert not any(each.more_rationales for each in corrupt(some, treatment, 0))


def test_data_check_counts_them(source: Path, tmp_path: Path) -> None:
    report = check(load_source(config(source, tmp_path).data))
    assert report.splits["train"].several == 20
    assert "  examples with several rationales: 20" in report.lines()
    words = report.splits["train"].rationale_words
    assert words
    # Of the further texts, half have three words.
    assert words.low == 4


def test_an_epoch_draws_one_of_all(tiny_t5: Path) -> None:
    tables = [
        tokens_of(tiny_t5, with_(text))[0] for text in ("a red .", "a red red .", "a red red red .")
    ]
    drawn = Drawn(tables, of_all(tables), 0)
    assert len(drawn) == len(EXAMPLES)
    seen: Counter[tuple[int, ...]] = Counter()
    epochs = []
    for epoch in range(12):
        drawn.draw(epoch)
        rationales = [tuple(each.rationale_ids) for each in drawn]
        assert [tuple(drawn[row].rationale_ids) for row in range(len(drawn))] == rationales
        seen.update(rationales)
        epochs.append(rationales)
    # 26 examples in 12 epochs: 104 of each, by chance.
    assert len(seen) == 3
    assert min(seen.values()) > 70
    assert len(set(map(tuple, epochs))) == 12
    # A training that resumes draws the same.
    again = Drawn(tables, of_all(tables), 0)
    again.draw(5)
    assert [tuple(each.rationale_ids) for each in again] == epochs[5]
    assert drawn.lengths == [
        max(len(t[row].input_ids + t[row].rationale_ids) for t in tables)
        for row in range(len(drawn))
    ]


def of_all(tables: Sequence[Sequence[Tokens]]) -> "np.ndarray[Any, Any]":
    return np.full(len(tables[0]), len(tables))


def test_each_is_drawn_as_often_as_another(tiny_t5: Path) -> None:
    """An example with two of at most three rationales begins again in the third table."""
    texts = ("a red .", "a red red .", "a red .")
    tables = [tokens_of(tiny_t5, with_(text))[0] for text in texts]
    drawn = Drawn(tables, np.full(len(EXAMPLES), 2), 0)
    seen: Counter[int] = Counter()
    for epoch in range(40):
        drawn.draw(epoch)
        seen.update(len(each.rationale_ids) for each in drawn)
    # Of 1,040, half each: 16 are a standard deviation.
    assert sorted(seen.values())[0] > 450


def with_(text: str) -> list[Example]:
    return [replace(example, rationale=text) for example in EXAMPLES]


def test_stopped_in_an_epoch_a_training_goes_on_with_the_same_rationales(
    tiny_t5: Path, context: PlainContext, tmp_path: Path
) -> None:
    student = Student(tiny_t5, checkpoint_steps=3)
    tables = [tokens_of(tiny_t5, with_(text))[0] for text in ("a red .", "a red red .")]
    student.job = replace(student.job, rationale=True)

    def train(work: Path, fail_at: int = -1) -> None:
        # Another start has drawn nothing yet.
        drawn = Drawn(tables, of_all(tables), 0)
        student.job = replace(student.job, train=drawn, begin=drawn.draw)
        student.train(work, context, fail_at)

    train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "cut", 6)
    train(tmp_path / "cut")
    assert same_weights(tmp_path / "cut", tmp_path / "whole")


def test_a_teacher_reads_them_all_and_its_states_are_the_mean(
    source: Path, tmp_path: Path, context: PlainContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[tuple[int, ...]] = set()

    def noting(tokens: Any, rows: Any, *arguments: Any) -> Any:
        read.update(tuple(tokens[row].rationale_ids) for row in rows.rows)
        return collate(tokens, rows, *arguments)

    collate = batches.collate
    monkeypatch.setattr(loop, "collate", noting)
    settings = config(source, tmp_path, teacher={"epochs": 12})
    plan = make(settings, context)
    store = Store(tmp_path)
    (stage,) = [s for s in plan.stages if isinstance(s, StatesStage)]
    place = StageContext(store, tmp_path / "work", settings.scale, context)
    several, counts = place.several(stage)
    assert Counter(counts.tolist()) == {1: 20, 3: 20}
    # In 12 epochs, a rationale is missed with a probability of (2 / 3) ** 12 = .8 %.
    known = {tuple(table[row].rationale_ids) for table in several for row in range(40)} - {()}
    assert len(known - read) <= 2
    folder = store.path("teacher", stage.teacher) / "model"
    backbone = load_published(folder).eval()
    split = place.split(stage, folder, "train")
    each = [
        _states(backbone, replace(split, tokens=table), list(range(40)), [stage.part], context)
        for table in several
    ]
    stored = StoredStates({stage.part: store.path("states", stage.key)})
    everything = batches.Rows(list(range(40)), [1.0] * 40)
    batch = collate(split.tokens, everything, split.pad_id, False)
    found = stored.batch(batch).input_states[int(stage.part)]
    differences = 0
    for row in range(40):
        own = [of[row][stage.part] for of in each[: counts[row]]]
        mean = torch.stack(own).mean(0)
        assert torch.allclose(found[row, : len(mean)], mean, atol=1e-5)
        differences += not torch.allclose(own[0], mean, atol=1e-3)
    # Those of every second example are not what its first rationale alone gives.
    assert differences == 20


def test_being_drawn_to_the_mean_is_being_drawn_to_each() -> None:
    """Why one set of states is enough: the gradients are equal."""
    torch.manual_seed(0)
    student = torch.randn(4, 6, 8, requires_grad=True)
    each = torch.randn(3, 4, 6, 8)
    mask = torch.ones(4, 6)
    distances: tuple[Distance, ...] = ("mse", "scaled_mse")
    for distance in distances:
        losses = [state_distance(student, states, mask, distance, 2.0).sum() for states in each]
        (turns,) = torch.autograd.grad(torch.stack(losses).mean(), student)
        mean = state_distance(student, each.mean(0), mask, distance, 2.0).sum()
        (once,) = torch.autograd.grad(mean, student)
        assert torch.allclose(turns, once, atol=1e-6)


def in_two(context: Pair, folder: Path) -> None:
    make(config(folder / "source", folder / "two"), context)


def test_two_workers_train_as_one(source: Path, tmp_path: Path, context: PlainContext) -> None:
    (tmp_path / "source").symlink_to(source)
    plan = make(config(source, tmp_path / "one"), context)
    in_pair(in_two, tmp_path)()
    assert plan.teacher
    for stage in (plan.teacher, plan.members[0].student):
        one, two = (
            [
                [row["metrics"].get(name, 0) for name in ("loss", "dev_loss", "dev_accuracy")]
                for row in rows(Store(tmp_path / name).path(stage.kind, stage.key))
            ]
            for name in ("one", "two")
        )
        assert torch.allclose(torch.tensor(one), torch.tensor(two), rtol=1e-4)
        assert len(one) > 3


def test_an_online_teacher_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"align\.states: must be stored, because some examples"):
        plan_run(config(source, tmp_path, align={"states": "online"}))
