"""What planning keeps: the same data are read once, and changed data always again."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from small import EXAMPLES
from small_run import small_config

from knife.config.run import Data
from knife.core.errors import UserError
from knife.data.jsonl import write_examples
from knife.data.source import load_source, source_state
from knife.pipeline.run import publish_data
from knife.plan import prepared, sources
from knife.plan.plan import Plan, plan_run
from knife.store.store import Store


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the sources that were read since."""
    seen: list[str] = []

    def load(data: Data) -> Any:
        seen.append(data.source)
        return load_source(data)

    monkeypatch.setattr(sources, "load_source", load)
    return seen


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("train", "dev", "test"):
        write_examples(folder / f"{name}.jsonl", EXAMPLES)
    text = (folder / "train.jsonl").read_text()
    for name in ("dev", "test"):
        (folder / f"{name}.jsonl").write_text(text.replace('"id": "', f'"id": "{name}-'))
    return folder


def plan(tmp_path: Path, source: Path, **data: Any) -> Plan:
    changes = {"source": str(source)} | data
    return plan_run(small_config(tmp_path / "store", data=changes, methods=["finetune", "knife"]))


def test_data_are_read_once(tmp_path: Path, source: Path, reads: list[str]) -> None:
    first = plan(tmp_path, source)
    second = plan(tmp_path, source)
    assert reads == [str(source)]
    assert (second.key, second.stages, second.notes) == (first.key, first.stages, first.notes)
    assert second.needs == first.needs
    # Other settings are other data.
    plan(tmp_path, source, rationale="shuffled")
    assert len(reads) == 2


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_changed_file_is_read_again(
    tmp_path: Path, source: Path, reads: list[str], split: str
) -> None:
    """Even if it has the size and the time that it had before."""
    first = plan(tmp_path, source)
    path = source / f"{split}.jsonl"
    before, text = path.stat(), path.read_text()
    path.write_text(text.replace("frog", "toad").replace("forest", "desert"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.read_text() != text
    second = plan(tmp_path, source)
    assert len(reads) == 2
    assert second.key != first.key


def test_a_new_file_is_seen(tmp_path: Path, source: Path, reads: list[str]) -> None:
    plan(tmp_path, source)
    (source / "notes.txt").write_text("a file that is not read, of which a note says so")
    plan(tmp_path, source)
    assert len(reads) == 2
    # What is in it does not matter, as of a store in the same folder.
    (source / "notes.txt").write_text("another text")
    plan(tmp_path, source)
    assert len(reads) == 2


def test_a_changed_shard_is_seen(tmp_path: Path, source: Path, reads: list[str]) -> None:
    path = source / "train-00000-of-00001.jsonl"
    (source / "train.jsonl").rename(path)
    first = plan(tmp_path, source)
    path.write_text(path.read_text().replace("forest", "desert"))
    assert plan(tmp_path, source).key != first.key
    assert len(reads) == 2


def test_other_code_reads_again(
    tmp_path: Path, source: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan(tmp_path, source)
    monkeypatch.setattr(prepared, "_CODE", "other code")
    second = plan(tmp_path, source)
    assert len(reads) == 2
    # The data are the same, and so are all results that depend on them.
    assert second.key == first.key


def test_the_hub_is_always_asked() -> None:
    """Its cache may have another revision than the one that is asked for."""
    for source in ("hub:some/data@" + "0123456789" * 4, "hub:some/data", "qasc", "/nowhere"):
        assert source_state(Data(source=source)) is None


def test_a_source_that_is_edited_while_variants_are_planned(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read of the old file is not kept as the new file's."""
    text = (source / "train.jsonl").read_text()

    def load(data: Data) -> Any:
        found = load_source(data)
        (source / "train.jsonl").write_text(text.replace("forest", "desert"))
        return found

    half = {"name": "half", "method": "finetune", "data": {"fraction": 0.5}}
    settings: dict[str, Any] = {"data": {"source": str(source)}, "methods": ["finetune", half]}
    monkeypatch.setattr(sources, "load_source", load)
    first = plan_run(small_config(tmp_path / "store", **settings))
    monkeypatch.undo()
    again = plan_run(small_config(tmp_path / "store", **settings))
    fresh = plan_run(small_config(tmp_path / "fresh", **settings))
    assert again.key == fresh.key != first.key
    for splits in again.data.values():
        assert "forest" not in str([example.question for example in splits.train])


def test_what_is_lost_after_planning_is_told(tmp_path: Path, source: Path) -> None:
    found = plan(tmp_path, source)
    store = Store(tmp_path / "store")
    (key,) = found.data
    shutil.rmtree(store.root / "data" / key)
    with pytest.raises(UserError, match=f"data/{key} was removed or damaged after"):
        publish_data(store, found)
    assert not store.has("data", key)
    publish_data(store, plan(tmp_path, source))
    assert plan(tmp_path, source).data == found.data


def test_a_store_that_cannot_be_there_is_told_with_all_other_errors(
    tmp_path: Path, source: Path
) -> None:
    (tmp_path / "store").write_text("a file")
    (source / "dev.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(UserError) as error:
        plan(tmp_path, source)
    said = "\n".join(error.value.errors)
    assert "is a file; give another store" in said
    assert "dev.jsonl:1: question: is missing" in said
