"""Teacher states in the store: what runs share, what a kill leaves behind, and locks."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pair import Pair, in_pair, make, run_stages
from safetensors.torch import load_file
from small_run import small_config
from torch import Tensor, allclose, equal

from knife.config.run import RunConfig
from knife.config.scale import Scale
from knife.data import batches
from knife.pipeline.run import publish_data
from knife.plan.needs import states_errors
from knife.plan.plan import Plan, needed, plan_run
from knife.plan.stage import StatesStage
from knife.store.store import Store
from knife.train import states as states_stage
from knife.train.context import PlainContext

ALL = {"input": {"layers": "all"}, "output": {"weight": 1}}
CHOICES = {"input": {"weight": 0}, "output": {"weight": 1, "target": "choices"}}


@pytest.fixture(autouse=True)
def context() -> Iterator[PlainContext]:
    with PlainContext() as context:
        yield context


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many examples the teacher reads for its states, batch by batch."""
    read: list[int] = []

    def noting(tokens: Any, rows: Any, *arguments: Any) -> Any:
        read.append(len(set(rows.rows)))
        return collate(tokens, rows, *arguments)

    collate = batches.collate
    monkeypatch.setattr(states_stage, "collate", noting)
    return read


def config(store: Path, **align: Any) -> RunConfig:
    return small_config(store, align=align)


def states_of(plan: Plan) -> list[StatesStage]:
    return [stage for stage in plan.stages if isinstance(stage, StatesStage)]


def made(config: RunConfig, context: PlainContext) -> list[str]:
    """Make what the store lacks of a run, and return the labels."""
    plan, store = plan_run(config), Store(config.store)
    have = {(s.kind, s.key) for s in plan.stages if store.has(s.kind, s.key)}
    missing = needed(plan.stages, have)
    make(config, context)
    return [stage.label for stage in missing]


def shards(store: Store, key: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.path("states", key).glob("shard-*")}


def weights(config: RunConfig) -> dict[str, Tensor]:
    student = plan_run(config).members[0].student
    return load_file(Store(config.store).path("student", student.key) / "model/model.safetensors")


def test_a_run_of_more_layers_computes_only_these(
    tmp_path: Path, context: PlainContext, passes: list[int]
) -> None:
    """And its student is the one that a run on an empty store trains."""
    last, every = config(tmp_path / "one"), config(tmp_path / "one", **ALL)
    assert [label for label in made(last, context) if "states" in label] == [
        "teacher states, layer 3"
    ]
    (stage,) = states_of(plan_run(last))
    store = Store(tmp_path / "one")
    before = {p: p.stat().st_mtime_ns for p in store.path("states", stage.key).iterdir()}
    assert sum(passes) == 40
    assert made(every, context)[:3] == [
        f"teacher states, {part}" for part in ("layer 1", "layer 2", "output")
    ]
    # One more pass for the three.
    assert sum(passes) == 80
    after = {p: p.stat().st_mtime_ns for p in store.path("states", stage.key).iterdir()}
    assert after == before
    # Each layer is there once, and takes what its states take.
    stages = states_of(plan_run(every))
    assert {p.name for p in (tmp_path / "one" / "states").iterdir()} == {s.key for s in stages}
    needs = plan_run(every).needs
    for each in stages:
        found, need = shards(store, each.key), needs[each.key]
        assert isinstance(need, int)
        # Every shard has a header.
        assert need < sum(map(len, found.values())) < need + 400 * len(found)
    fresh = config(tmp_path / "other", **ALL)
    made(fresh, context)
    assert sum(passes) == 120
    one, other = weights(every), weights(fresh)
    assert all(equal(one[name], other[name]) for name in one)


def test_what_no_student_reads_is_not_stored(tmp_path: Path, context: PlainContext) -> None:
    unread = config(tmp_path, **CHOICES)
    assert "teacher states, scores" in made(unread, context)
    (folder,) = (tmp_path / "states").iterdir()
    (stage,) = states_of(plan_run(unread))
    assert folder.name == stage.key
    assert stage.part == "scores"
    # Two scores of 4 bytes, the row and the end for each of 40 examples.
    values = [load_file(path)["values"] for path in folder.glob("shard-*")]
    assert sum(each.numel() for each in values) == 80
    plan = plan_run(unread)
    size = plan.needs[stage.key]
    assert size == 40 * (2 * 4 + 2 * 8)
    assert states_errors(plan.needs, plan.stages, tmp_path, size) == []


def test_a_kill_between_two_parts_keeps_what_was_published(
    tmp_path: Path, context: PlainContext, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = config(tmp_path / "whole", **ALL), config(tmp_path / "cut", **ALL)
    made(whole, context)
    passes.clear()
    published: list[str] = []

    def publish_two(self: Store, kind: str, key: str, depends: Any) -> Path:
        if kind == "states" and len(published) == 2:
            raise KeyboardInterrupt
        published.append(key) if kind == "states" else None
        return publish(self, kind, key, depends)

    publish = Store.publish
    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish", publish_two)
        with pytest.raises(KeyboardInterrupt):
            made(cut, context)
    store, peaceful = Store(tmp_path / "cut"), Store(tmp_path / "whole")
    stages = states_of(plan_run(cut))
    assert [store.has("states", s.key) for s in stages] == [s.key in published for s in stages]
    assert len(published) == 2
    # All shards are there: nothing is computed again.
    assert sum(passes) == 40
    made(cut, context)
    assert sum(passes) == 40
    for stage in stages:
        assert store.damage("states", stage.key) == []
        assert shards(store, stage.key) == shards(peaceful, stage.key)
    one, other = weights(cut), weights(whole)
    assert all(equal(one[name], other[name]) for name in one)


def test_a_part_that_another_run_computes_is_waited_for(
    tmp_path: Path, context: PlainContext, passes: list[int]
) -> None:
    every = config(tmp_path / "store", **ALL)
    plan, store = plan_run(every), Store(tmp_path / "store")
    publish_data(store, plan)
    run_stages([s for s in plan.stages if s.kind == "teacher"], store.root, Scale(), context)
    stages = states_of(plan)
    run_stages(stages[:1], store.root, Scale(), context)
    theirs = store.path("states", stages[0].key).rename(tmp_path / "theirs")
    passes.clear()
    others = threading.Thread(target=run_stages, args=(stages, store.root, Scale(), context))
    with store.lock("states", stages[0].key):
        others.start()
        time.sleep(3)
        assert not passes
        assert not any(store.has("states", stage.key) for stage in stages)
        theirs.rename(store.path("states", stages[0].key))
        stamp = (store.path("states", stages[0].key) / "manifest.json").stat().st_mtime_ns
    others.join(60)
    assert all(store.has("states", stage.key) for stage in stages)
    assert (store.path("states", stages[0].key) / "manifest.json").stat().st_mtime_ns == stamp
    # The three others took one pass.
    assert sum(passes) == 40


def work(context: Pair, folder: Path) -> None:
    make(config(folder / "pair", **ALL), context)


def test_two_workers_write_whole_parts(tmp_path: Path, context: PlainContext) -> None:
    wait = in_pair(work, tmp_path)
    alone = config(tmp_path / "alone", **ALL)
    made(alone, context)
    wait()
    one, pair = Store(tmp_path / "alone"), Store(tmp_path / "pair")
    for stage in states_of(plan_run(alone)):
        assert pair.damage("states", stage.key) == []
        found, expected = (store.path("states", stage.key) for store in (pair, one))
        assert {path.name for path in found.glob("shard-*")} == {
            path.name for path in expected.glob("shard-*")
        }
        for path in expected.glob("shard-*"):
            own, other = load_file(found / path.name), load_file(path)
            for name in ("rows", "end"):
                assert equal(own[name], other[name])
            # The workers' teacher was trained by two.
            assert allclose(own["values"], other["values"], rtol=1e-3, atol=1e-4)
        shares = json.loads((found / "workers.json").read_text())
        assert [share["rank"] for share in shares] == [0, 1]
        assert sum(share["examples"] for share in shares) == 40
        assert min(share["examples"] for share in shares) > 0
