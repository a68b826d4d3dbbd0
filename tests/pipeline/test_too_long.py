"""A run that leaves out or cuts long examples has the numbers of one whose data were so before."""

import json
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
from knife.plan.plan import Plan, plan_run
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


@pytest.mark.parametrize("too_long", ["drop", "cut:question"])
def test_variants_that_leave_out_other_test_examples_are_not_compared(
    tmp_path: Path, too_long: str
) -> None:
    splits = creatures(World(train=40, dev=10, test=10, creatures=16))
    data = {"source": folder(tmp_path / "both", splits, LONG), "too_long": too_long}
    wide = {"name": "wide", "method": "finetune", "data": {"max_tokens": 512}}
    with pytest.raises(UserError, match="a variant changes the test split"):
        plan_run(small_config(tmp_path / "store", data=data, methods=["finetune", wide]))


def table(path: Path, passage: str) -> dict[str, object]:
    """Write a table whose first passages are `passage`; return the settings that read it."""
    path.mkdir()
    for name, count in (("train", 12), ("dev", 4), ("test", 4)):
        rows = [
            {"nr": f"{name}{n}", "stem": f"which {name} {n}", "passage": "a pond" if n else passage}
            | {"a": "yes", "b": "no", "key": "ab"[n % 2], "why": "so ."}
            for n in range(count)
        ]
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"question": ["passage", "stem"], "choices": ["a", "b"], "answer": "key"}
    columns |= {"answer_is": "letter", "id": "nr", "rationale": "why"}
    return {"source": str(path), "columns": columns, "max_tokens": 64}


def test_what_is_cut_is_as_if_it_had_been_written_so_and_is_said(tmp_path: Path) -> None:
    long = table(tmp_path / "long", "forest " * 300)
    changes = {"methods": ["finetune"], "seeds": [0], "student": {"epochs": 1}}
    store = tmp_path / "store"

    def planned(data: dict[str, object]) -> Plan:
        return plan_run(small_config(store, data=data, **changes))

    config = small_config(store, data=long | {"too_long": "cut:passage"}, **changes)
    plan = plan_run(config)
    (used,) = plan.data.values()
    (question,) = (example.question for example in used.train if example.id == "train0")
    kept = question.count("forest")
    assert question == f"{'forest ' * (kept - 1)}forest. which train 0"
    # The same data, written so: one word more has no room.
    plain = planned(table(tmp_path / "plain", "forest " * kept))
    assert [stage.key for stage in plan.stages] == [stage.key for stage in plain.stages]
    with pytest.raises(UserError, match="3 of 20 task inputs are longer than 64 tokens"):
        planned(table(tmp_path / "more", "forest " * (kept + 1)))
    # What is kept of one setting is not taken for another.
    assert [note for note in planned(long | {"too_long": "drop"}).notes if "left out" in note]
    with pytest.raises(UserError, match="3 of 20 task inputs are longer than 64 tokens"):
        planned(long)
    wide = planned(long | {"too_long": "cut:passage", "max_tokens": 80})
    assert [stage.key for stage in wide.stages] != [stage.key for stage in plan.stages]
    with pytest.raises(UserError, match="however much of stem is cut"):
        planned(long | {"too_long": "cut:stem"})
    said = [
        f"1 of {count} {name} examples are cut to fit data.max_tokens, by at most {300 - kept} "
        "words of passage (data.too_long=cut:passage)"
        for name, count in (("train", 12), ("dev", 4), ("test", 4))
    ]
    assert [note for note in plan_run(config).notes if "are cut" in note] == said
    result = run(config, display)
    assert set(said) <= set(result.plan.notes)
    record = (result.folder / "run.json").read_text()
    assert all(line in record for line in said)
