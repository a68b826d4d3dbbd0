"""`teacher.gate`: teachers that answer too few dev examples right are told of, or trained anew."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from page_text import section
from small_run import small_config

from knife.config.run import RunConfig, World
from knife.core.errors import UserError
from knife.data.creatures import creatures
from knife.data.jsonl import write_examples
from knife.pipeline.dry_run import dry_run
from knife.pipeline.gate import with_epochs
from knife.pipeline.run import run
from knife.plan.plan import plan_run
from knife.store.store import Store
from knife.terminal.display import no_display
from knife.train.results import read_trained

MODEL = {"teacher": "tiny-llama", "student": "tiny-llama"}


def config(store: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {
        "model": MODEL,
        "data": {"world": {"train": 32, "dev": 40, "test": 10}},
        "teacher": {"epochs": 1, "learning_rate": 1e-3, "batch_size": 32},
        "student": {"epochs": 1},
        "track": None,
    }
    return small_config(store, **(values | changes))


def gated(store: Path, **gate: Any) -> RunConfig:
    given = config(store)
    teacher = given.teacher.model_dump() | {"gate": gate}
    return config(store, teacher=teacher)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store; the tests of this file make the same teachers in it."""
    return tmp_path_factory.mktemp("gate") / "store"


def test_a_teacher_below_its_gate_is_told_of(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = gated(store, right=1)
    waiting = dry_run(settings)
    assert [s.label for s in waiting.stages if s.kind == "teacher"] == ["teacher"]
    assert any("not decided yet" in note for note in waiting.notes)
    result = run(settings, no_display)
    plain = plan_run(config(store))
    # The same stages as without a gate; what was decided is told in a folder of its own.
    assert [stage.key for stage in result.plan.stages] == [stage.key for stage in plain.stages]
    assert result.plan.key == plan_run(settings).key != plain.key
    assert result.plan.teacher
    right = read_trained(result.store, "teacher", result.plan.teacher.key)["dev_accuracy"]
    said = (
        f"The teacher answers {100 * right:.1f} % of the dev examples right, with rationales, "
        "after 1 epoch, below teacher.gate.right = 100 %: its states may teach little."
    )
    assert result.verdict.notes[0] == said
    assert said in caplog.text
    assert said in dry_run(settings).notes
    text = section((result.folder / "report.html").read_text(), "Decided before the run")
    assert f"teacher 1 {100 * right:.1f} 100.0 yes" in text
    # One that is good enough is not worth a word.
    caplog.clear()
    good = run(gated(store, right=right), no_display)
    assert good.made == []
    assert not [note for note in good.verdict.notes if "teacher" in note]
    assert caplog.text == ""


def test_a_teacher_below_its_gate_is_trained_anew_up_to_two_times(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(gated(store, right=1, below="train"), no_display)
    (gate,) = json.loads((result.folder / "run.json").read_text())["gates"]
    right = dict(gate["tries"])
    assert list(right) == [1, 2, 4]
    assert all(share < 1 for share in right.values())
    # Students learn from the best of them.
    assert gate["kept"] == max(right, key=right.__getitem__)
    assert result.plan.teacher
    assert result.plan.teacher.training.epochs == gate["kept"]
    assert result.plan.teacher.key in {stage.key for stage in result.made}
    # Known before the gate decides.
    assert result.folder.name.endswith(plan_run(gated(store, right=1, below="train")).key)
    assert result.plan.config.teacher.epochs == gate["kept"]
    assert "below teacher.gate.right = 100 %; students learn from that of " in caplog.text
    # Enough for the second: nothing is trained that was before, and no third one is looked for.
    assert right[1] < right[2]
    enough = run(gated(store, right=right[2], below="train"), no_display)
    assert [stage.kind for stage in enough.made if stage.kind == "teacher"] == []
    assert enough.plan.teacher
    assert enough.plan.teacher.training.epochs == 2
    assert enough.verdict.notes[0] == (
        f"The teacher answers {100 * right[1]:.1f} % of the dev examples right, with rationales, "
        f"after 1 epoch, {100 * right[2]:.1f} % after 2 epochs; students learn from the last one "
        f"(teacher.gate.right = {100 * right[2]:g} %)."
    )
    caplog.clear()
    assert run(gated(store, right=right[2], below="train"), no_display).made == []
    assert caplog.text == ""


def test_each_method_keeps_a_teacher_of_its_own(tmp_path: Path) -> None:
    others: list[Any] = [
        "finetune",
        "teacher_init",
        {"name": "shuffled", "method": "knife", "data": {"rationale": "shuffled"}},
        {"name": "open", "method": "knife", "teacher": {"bottleneck": False}},
        {"name": "long", "method": "knife", "teacher": {"epochs": 7}},
    ]
    given = config(tmp_path, methods=["knife", *others], ablate=False)

    def epochs(changed: RunConfig) -> dict[str, int]:
        return {each.name: changed.of(each).teacher.epochs for each in changed.variants()}

    before = epochs(given)
    assert with_epochs(given, {"knife": 1, "long": 7}) is given
    both = with_epochs(given, {"knife": 2, "teacher_init": 2})
    assert epochs(both) == before | {"knife": 2, "teacher_init": 2, "finetune": 2}
    # It is still the run's own, whose ceiling is shown.
    assert plan_run(both).teacher
    some = with_epochs(given, {"shuffled": 4, "long": 14})
    assert epochs(some) == before | {"shuffled": 4, "long": 14}
    assert some.teacher.epochs == 1


def test_a_gate_without_a_dev_rationale_is_refused(tmp_path: Path) -> None:
    world = creatures(World(train=20, dev=10, test=10))
    source = tmp_path / "data"
    source.mkdir()
    for name, examples in world.parts.items():
        kept = examples if name == "train" else [replace(e, rationale=None) for e in examples]
        write_examples(source / f"{name}.jsonl", kept)
    values = {"gate": {"right": 0.9}}
    with pytest.raises(UserError, match=r"teacher.gate: none of the dev examples has a rationale"):
        run(config(tmp_path / "store", data={"source": str(source)}, teacher=values), no_display)
    assert not list(Store(tmp_path / "store", write=False).root.glob("teacher/*"))
