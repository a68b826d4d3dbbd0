"""A run that leaves out long examples has the numbers of one whose data never had them."""

from pathlib import Path

import pytest
from small_run import small_config

from knife.config.run import World
from knife.core.errors import UserError
from knife.data.creatures import creatures
from knife.data.example import Example, Splits
from knife.data.jsonl import write_examples
from knife.pipeline.dry_run import dry_run
from knife.pipeline.run import run
from knife.plan.plan import plan_run
from knife.terminal.display import display

LONG = {
    name: Example(f"long {name}", "forest " * 300, ("yes", "no"), 0, "x .")
    for name in ("train", "test")
}


def folder(path: Path, splits: Splits, long: dict[str, Example]) -> str:
    path.mkdir()
    for name in ("train", "dev", "test"):
        examples = [*getattr(splits, name), *([long[name]] if name in long else [])]
        write_examples(path / f"{name}.jsonl", examples)
    return str(path)


def test_what_is_too_long_is_as_if_it_were_not_there_and_is_said(tmp_path: Path) -> None:
    splits = creatures(World(train=40, dev=10, test=10, creatures=16))
    short = folder(tmp_path / "short", splits, {})
    both = folder(tmp_path / "both", splits, LONG)
    store = tmp_path / "store"
    changes = {"methods": ["finetune"], "seeds": [0], "student": {"epochs": 1}}
    with pytest.raises(UserError, match="2 of 62 task inputs are longer than 256 tokens"):
        plan_run(small_config(store, data={"source": both}, **changes))
    config = small_config(store, data={"source": both, "too_long": "drop"}, **changes)
    plain = plan_run(small_config(store, data={"source": short}, **changes))
    plan = plan_run(config)
    assert [stage.key for stage in plan.stages] == [stage.key for stage in plain.stages]
    said = [
        f"1 of {count} {name} examples are left out, since their questions are longer than "
        f"data.max_tokens (data.too_long=drop): 'long {name}'"
        for name, count in (("train", 41), ("test", 11))
    ]
    assert [note for note in dry_run(config).notes if "left out" in note] == said
    result = run(config, display)
    assert set(said) <= set(result.plan.notes)
    (note,) = [note for note in result.verdict.notes if "left out" in note]
    assert note.startswith("The test split is smaller than the source's: 1 of 11 test examples are")
    record = (result.folder / "run.json").read_text()
    assert all(line in record for line in said)


def test_a_fraction_is_of_what_has_room(tmp_path: Path) -> None:
    splits = creatures(World(train=40, dev=10, test=10, creatures=16))
    data = {"source": folder(tmp_path / "both", splits, LONG), "too_long": "drop", "fraction": 0.5}
    plan = plan_run(small_config(tmp_path / "store", data=data, methods=["finetune"]))
    (used,) = plan.data.values()
    assert len(used.train) == 20


def test_variants_that_leave_out_other_test_examples_are_not_compared(tmp_path: Path) -> None:
    splits = creatures(World(train=40, dev=10, test=10, creatures=16))
    data = {"source": folder(tmp_path / "both", splits, LONG), "too_long": "drop"}
    wide = {"name": "wide", "method": "finetune", "data": {"max_tokens": 512}}
    with pytest.raises(UserError, match="a variant changes the test split"):
        plan_run(small_config(tmp_path / "store", data=data, methods=["finetune", wide]))
