"""What the key of a result depends on, and which stages a run shares, needs and refuses."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from small_run import small_config

from knife.config.overrides import merge, read_overrides
from knife.core.errors import UserError
from knife.data.digest import digests
from knife.data.example import Example
from knife.data.jsonl import write_examples
from knife.data.source import load_source
from knife.data.tokenizing import tokenize_splits
from knife.models.load import load_backbone
from knife.models.source import EMBEDDED, find_model
from knife.models.tokenizer import load_tokenizer
from knife.plan.plan import Plan, needed, plan_run
from knife.plan.stage import StatesStage, inputs
from knife.train.engine import gathered_state

METHODS = ["finetune", "knife", "teacher_init"]


@pytest.fixture(autouse=True)
def large_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make RAY_ADDRESS name a cluster: a plan does not check numbers of workers against it."""
    monkeypatch.setenv("RAY_ADDRESS", "example:1")


def plan_of(store: Path, *overrides: str) -> Plan:
    values = merge({"methods": METHODS}, read_overrides(list(overrides)))
    return plan_run(small_config(store, **values))


def keys(plan: Plan) -> dict[str, str]:
    """Return the keys of a plan by what they belong to."""
    found = {"run": plan.key, "data": ",".join(plan.data)}
    if plan.teacher:
        found["teacher"] = plan.teacher.key
    found |= {f"test {name}": stage.key for name, stage in plan.ceiling.items()}
    found["states"] = ",".join(sorted(s.key for s in plan.stages if s.kind == "states"))
    for member in plan.members:
        found[member.method] = member.student.key
        found[f"test {member.method}"] = member.evaluate.key
    return found


TEACHER = {"teacher", "test with", "test without", "states", "knife", "test knife"} | {
    "teacher_init",
    "test teacher_init",
}
KNIFE = {"knife", "test knife"}
STUDENTS = KNIFE | {"finetune", "test finetune", "teacher_init", "test teacher_init"}
TESTS = {"test with", "test without"} | {f"test {method}" for method in METHODS}
EVERYTHING = TEACHER | STUDENTS
# What changes with each key of the config, besides the run's own key.
CHANGES: dict[str, set[str]] = {
    "student.learning_rate=0.001": STUDENTS,
    "student.epochs=3": STUDENTS,
    "student.batch_size=10": STUDENTS,
    "student.accumulate=2": STUDENTS,
    "student.warmup=0.2": STUDENTS,
    "student.weight_decay=0": STUDENTS,
    "student.clip=0.5": STUDENTS,
    "student.evaluate_epochs=2": STUDENTS,
    "student.patience=1": STUDENTS,
    "student.lora={rank: 4}": STUDENTS,
    "seeds=[1]": STUDENTS,
    "teacher.learning_rate=0.001": TEACHER,
    "teacher.epochs=3": TEACHER,
    "teacher.batch_size=10": TEACHER,
    "teacher.accumulate=2": TEACHER,
    "teacher.warmup=0.2": TEACHER,
    "teacher.weight_decay=0": TEACHER,
    "teacher.clip=0.5": TEACHER,
    "teacher.evaluate_epochs=2": TEACHER,
    "teacher.patience=1": TEACHER,
    "teacher.lora={rank: 4}": TEACHER,
    "teacher.bottleneck=false": TEACHER,
    "teacher.seed=4": TEACHER,
    "align.input.weight=10": KNIFE,
    "align.input.distance=mse": KNIFE,
    "align.input.layers=all": KNIFE | {"states"},
    "align.input.layers=[[3, 2]]": KNIFE | {"states"},
    "align.output.weight=1": KNIFE | {"states"},
    "align={output: {weight: 1, target: choices}}": KNIFE | {"states"},
    "align.states=online": KNIFE | {"states"},
    "align.states_precision=bf16": KNIFE | {"states"},
    "data.rationale=shuffled": TEACHER | {"data"},
    "data.world.train=44": EVERYTHING | {"data"},
    "data.fraction=0.5": EVERYTHING | {"data"},
    "data.max_tokens=200": EVERYTHING,
    "data.world.test=22": TESTS | {"data"},
    "data.world.dev=22": EVERYTHING | {"data"},
    "data.world.seed=1": EVERYTHING | {"data"},
    "data.world.cue=0": EVERYTHING | {"data"},
    "data.world.which=0.2": EVERYTHING | {"data"},
    "data.world.creatures=60": EVERYTHING | {"data"},
    "data={fraction: 0.5, split_seed: 1}": EVERYTHING | {"data"},
    "scale.precision=bf16": EVERYTHING,
    "scale.attention=eager": EVERYTHING,
    "scale.gradient_checkpointing=true": EVERYTHING,
    "scale.compile=true": EVERYTHING,
    "align.input.tokens=content": KNIFE,
    "name=other": set(),
}
NO_CHANGES = [
    "scale={launcher: ray, workers: 2}",
    "scale.zero_stage=3",
    "scale.checkpoint_steps=7",
    "align.output.target=choices",
    "track.experiment=other",
    "write.model=other",
    "track={uri: null, register: champion}",
    "compare={baseline: knife, margin: 1, difference: 20}",
    "scale={launcher: ray, min_workers: 1, placement: spread, gpus_per_worker: 0}",
    "scale={hang_seconds: 5, parallel: 3}",
    # No example is too long here.
    "data.too_long=drop",
    "data.too_long=cut:question",
    # None is faulty.
    "data.faulty=skip",
    # Other sources have these.
    "data={facts: {names: 40, train: 500, dev: 100, test: 200, split: names, seed: 1}}",
    # What it asks for is done before a run is planned.
    "teacher.gate={right: 0.5, below: train}",
    # Order and number of methods and seeds do not change individual results.
    "methods=[teacher_init, knife, finetune]",
    "align.input.layers=[[3, 3]]",
]


# Keys of the config that the lists above do not set: those of prompts and variants have separate
# tests below and in test_ablate.py, models are identified by their files, data by what is read of
# them, whatever columns it was in, and a store by its path.
ELSEWHERE = {
    *("prompt.shots", "prompt.rationales", "step_by_step.weight"),
    *("internalize.tokens_each_epoch", "ablate", "model.teacher", "model.student"),
    *("data.source", "data.columns", "methods", "store"),
}


def leaves(values: dict[str, Any], before: str = "") -> set[str]:
    """Return the dotted keys of nested values."""
    found = set()
    for name, value in values.items():
        key = f"{before}{name}"
        found |= leaves(value, f"{key}.") if isinstance(value, dict) else {key}
    return found


def test_no_key_of_the_config_is_left_out_of_the_lists(tmp_path: Path) -> None:
    """A new key must be listed with what depends on it: if it were missing in an artifact's key,
    stale results would be reused."""
    tried = set().union(*(leaves(read_overrides([line])) for line in [*CHANGES, *NO_CHANGES]))
    # A section that is null by default is a key of its own.
    tried |= {key.rpartition(".")[0] for key in tried}
    every = leaves(small_config(tmp_path).model_dump())
    assert every - tried - ELSEWHERE == set()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return keys(plan_of(tmp_path_factory.mktemp("plain")))


@pytest.mark.parametrize("override", CHANGES)
def test_a_key_changes_with_what_its_result_hangs_on(
    plain: dict[str, str], tmp_path: Path, override: str
) -> None:
    found = keys(plan_of(tmp_path, override))
    assert set(found) == set(plain)
    changed = {name for name in found if found[name] != plain[name]}
    assert changed == CHANGES[override] | {"run"}


@pytest.mark.parametrize("override", NO_CHANGES)
def test_a_key_stays_where_no_number_changes(
    plain: dict[str, str], tmp_path: Path, override: str
) -> None:
    found = keys(plan_of(tmp_path, override))
    assert {n: k for n, k in found.items() if n != "run"} == {
        n: k for n, k in plain.items() if n != "run"
    }


def test_stages_stand_after_what_they_read_and_none_twice(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "seeds=[0, 1]")
    places = [(stage.kind, stage.key) for stage in plan.stages]
    assert len(set(places)) == len(places)
    for number, stage in enumerate(plan.stages):
        assert all(place in places[:number] for place in inputs(stage))
    kinds = [kind for kind, _ in places]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "teacher": 1,
        "states": 1,
        "student": 6,
        "evaluate": 6 + 2,
    }
    assert [(m.method, m.seed) for m in plan.members] == [(m, s) for m in METHODS for s in (0, 1)]


def test_variants_share_what_they_have_in_common(tmp_path: Path) -> None:
    variants: list[Any] = [
        "finetune",
        "knife",
        {"name": "heavy", "method": "knife", "align": {"input": {"weight": 100}}},
        {"name": "shuffled", "method": "knife", "data": {"rationale": "shuffled"}},
        {"name": "open", "method": "knife", "teacher": {"bottleneck": False}},
        {"name": "plain", "method": "finetune", "data": {"rationale": "none"}},
    ]
    plan = plan_run(small_config(tmp_path, methods=variants))
    by_name = {member.method: member.student for member in plan.members}
    assert by_name["heavy"].states == by_name["knife"].states
    assert len({by_name[name].states[3] for name in ("knife", "shuffled", "open")}) == 3
    # Finetuning sees no rationale: removing them does not change the student.
    assert by_name["plain"].key == by_name["finetune"].key
    kinds = [stage.kind for stage in plan.stages]
    assert (kinds.count("teacher"), kinds.count("states"), kinds.count("student")) == (3, 3, 5)
    labels = {stage.label for stage in plan.stages if stage.kind == "teacher"}
    assert labels == {"teacher", "teacher of shuffled", "teacher of open"}
    # The ceiling is that of the run's own teacher.
    assert plan.teacher is not None
    assert {stage.model_key for stage in plan.ceiling.values()} == {plan.teacher.key}
    assert plan.teacher.key in [stage.key for stage in plan.stages if stage.label == "teacher"]


def test_runs_share_the_parts_of_states_that_they_have_in_common(tmp_path: Path) -> None:
    def parts(*overrides: str) -> dict[Any, str]:
        plan = plan_of(tmp_path, *overrides)
        (member,) = (member for member in plan.members if member.method == "knife")
        states = {s.part: s.key for s in plan.stages if isinstance(s, StatesStage)}
        assert states == member.student.states
        return states

    last, every = parts(), parts("align.input.layers=all", "align.output.weight=1")
    assert list(last) == [3]
    assert list(every) == [1, 2, 3, "output"]
    assert last.items() < every.items()
    # Parts without weight, and parts that are not read, are not stored.
    choices = "align={input: {weight: 0}, output: {weight: 1, target: choices}}"
    assert list(parts(choices)) == ["scores"]
    assert list(parts("align={input: {weight: 0}, output: {weight: 1}}")) == ["output"]
    # Scores are few: they are in fp32, in any precision of the other parts.
    assert parts(choices) == parts(choices, "align.states_precision=bf16")
    assert last != parts("align.states_precision=bf16")
    # Only scaled_mse reads anything of an online teacher from the store.
    online = parts("align.states=online")
    assert list(online) == [3]
    assert online == parts("align.states=online", "align.states_precision=bf16")
    assert parts("align.states=online", "align.input.distance=mse") == {}


def test_settings_of_input_alignment_without_weight_are_in_no_key(tmp_path: Path) -> None:
    unaligned = "align={input: {weight: 0}, output: {weight: 1}}"
    plain = keys(plan_of(tmp_path, unaligned))
    for setting in ("layers=all", "layers=[[1, 3]]", "distance=mse", "tokens=content"):
        assert keys(plan_of(tmp_path, unaligned, f"align.input.{setting}")) == plain


def test_a_run_without_knife_has_no_teacher(tmp_path: Path) -> None:
    plan = plan_run(small_config(tmp_path, methods=["finetune"]))
    assert plan.teacher is None
    assert plan.ceiling == {}
    assert [stage.kind for stage in plan.stages] == ["student", "evaluate"]


def test_online_students_read_the_teacher_and_stored_ones_do_not(tmp_path: Path) -> None:
    for states, reads in (("stored", {"states"}), ("online", {"states", "teacher"})):
        plan = plan_run(small_config(tmp_path, align={"states": states}))
        assert {kind for kind, _ in inputs(plan.members[0].student)} == reads
    init = plan_run(small_config(tmp_path, methods=["teacher_init"])).members[0].student
    assert {kind for kind, _ in inputs(init)} == {"teacher"}


def test_only_what_is_missing_and_what_it_reads_is_needed(tmp_path: Path) -> None:
    plan = plan_run(small_config(tmp_path, methods=["finetune", "knife"]))
    by_label = {stage.label: stage for stage in plan.stages}
    everything = {(stage.kind, stage.key) for stage in plan.stages}

    def without(*labels: str) -> list[str]:
        lost = {(by_label[label].kind, by_label[label].key) for label in labels}
        return [stage.label for stage in needed(plan.stages, everything - lost)]

    assert needed(plan.stages, set()) == plan.stages
    assert without() == []
    # Nothing reads these any more.
    states = "teacher states, layer 3"
    assert without("teacher", states) == []
    assert without("knife seed 0") == ["knife seed 0"]
    assert without("test knife seed 0") == ["test knife seed 0"]
    assert without("knife seed 0", "test knife seed 0") == ["knife seed 0", "test knife seed 0"]
    assert without("knife seed 0", states) == [states, "knife seed 0"]
    assert without("knife seed 0", states, "teacher") == ["teacher", states, "knife seed 0"]
    assert without("finetune seed 0", "teacher") == ["finetune seed 0"]
    assert without("test teacher", "teacher") == ["teacher", "test teacher"]


def test_all_errors_come_at_once(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    variants: list[Any] = [
        {"name": "lost", "method": "knife", "model": {"student": str(tmp_path / "empty")}},
        {"name": "bare", "method": "knife", "data": {"rationale": "none"}},
        {"name": "mixed", "method": "knife", "model": {"teacher": str(tiny_bert)}},
        {"name": "deep", "method": "knife", "align": {"input": {"layers": [[4, 1], [1, 9]]}}},
        {"name": "long", "method": "finetune", "data": {"max_tokens": 9}},
    ]
    config = small_config(
        tmp_path / "file" / "store",
        methods=["knife", *variants],
        scale={"launcher": "ray", "workers": 30},
    )
    with pytest.raises(UserError) as caught:
        plan_run(config)
    errors = caught.value.errors
    for start in (
        "teacher.batch_size: must be at least scale.workers x teacher.accumulate = 30",
        "student.batch_size: must be at least scale.workers x student.accumulate = 30",
        f"store: {tmp_path / 'file' / 'store'}: {tmp_path / 'file'} is a file",
        f"model.student: {tmp_path / 'empty'} has no config.json",
        "align.input.tokens: is 'all', but teacher and student split task inputs or choices into ",
        "align.input.layers: student layer 4 must be from 1 to 3",
        "align.input.layers: teacher layer 9 must be from 1 to 3",
        "data.max_tokens: 80 of 80 task inputs are longer than 9 tokens",
    ):
        assert any(error.startswith(start) for error in errors), (start, errors)
    assert any("rationale" in error for error in errors)
    assert len(errors) == len(set(errors))


def test_teacher_and_student_that_do_not_go_together(tmp_path: Path) -> None:
    other = tmp_path / "other"
    backbone = load_backbone(EMBEDDED["tiny-t5"])
    state = gathered_state(backbone)
    state = {name: tensor * 1.01 for name, tensor in state.items()}
    backbone.save(other, state)
    load_tokenizer(EMBEDDED["tiny-t5"], "model").save_pretrained(other)
    # A different teacher with the same tokens is accepted, but not for teacher_init.
    plan = plan_run(small_config(tmp_path / "store", model={"teacher": str(other)}))
    assert plan.teacher is not None
    with pytest.raises(UserError) as caught:
        plan_run(small_config(tmp_path, methods=METHODS, model={"teacher": str(other)}))
    assert caught.value.errors == [
        "methods: teacher_init starts from the teacher's weights, so model.student must be the "
        f"model of model.teacher, but got 'tiny-t5' and {str(other)!r}"
    ]
    # With a different tokenizer, the tokens of the task input differ.
    text = (other / "tokenizer.json").read_text()
    (other / "tokenizer.json").write_text(text.replace('"yes"', '"yess"'))
    with pytest.raises(UserError, match="split task inputs or choices into different tokens"):
        plan_run(small_config(tmp_path, model={"teacher": str(other)}))


def test_a_decoder_has_positions_for_its_answer_too(
    tmp_path: Path, tiny_gpt2: Path, tiny_llama: Path
) -> None:
    changes: dict[str, Any] = {"methods": ["knife"]}
    for folder in (tiny_gpt2, tiny_llama):
        changes["model"] = {"teacher": str(folder), "student": str(folder)}
        with pytest.raises(UserError) as caught:
            plan_run(small_config(tmp_path, data={"max_tokens": 512}, **changes))
        (student, teacher) = caught.value.errors
        found = re.fullmatch(
            r"data.max_tokens: must be at most (\d+), the positions of model.student, less (\d+) "
            r"tokens for the longest answer, but got 512",
            student,
        )
        assert found
        most, answer = map(int, found.groups())
        assert most + answer == 512
        # ` answer:` is 6 tokens, ` yes` and the end one each.
        assert answer == 8
        assert teacher == student.replace("model.student", "model.teacher")
        plan_run(small_config(tmp_path, data={"max_tokens": most}, **changes))


def test_texts_may_be_longer_than_a_window(tmp_path: Path, tiny_llama: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "mistral")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "mistral", "sliding_window": 16}
    (folder / "config.json").write_text(json.dumps(settings))
    model = {"teacher": str(folder), "student": str(folder)}
    assert plan_run(small_config(tmp_path, model=model, data={"max_tokens": 128})).stages


def test_a_variant_may_not_change_the_test_split(tmp_path: Path) -> None:
    other: Any = {"name": "other", "method": "knife", "data": {"world": {"seed": 5}}}
    with pytest.raises(UserError, match="a variant changes the test split"):
        plan_run(small_config(tmp_path, methods=["knife", other]))


def test_what_is_truncated_is_said(tmp_path: Path) -> None:
    examples = [
        Example(f"e{n}", "which food ?", ("fish", "fruit"), n % 2, "fish " * (5 * n + 1))
        for n in range(30)
    ]
    write_examples(tmp_path / "all.jsonl", examples)
    plan = plan_run(
        small_config(
            tmp_path / "store", data={"source": str(tmp_path / "all.jsonl"), "max_tokens": 60}
        )
    )
    (note,) = [note for note in plan.notes if "truncated to fit" in note]
    own = 9 + 1
    lengths = [own + 2 + 5 * n + 1 for n in range(30)]
    cut = [length - 60 for length in lengths if length > 60]
    assert note == (
        f"{len(cut)} rationales were truncated to fit data.max_tokens=60 ({sum(cut)} tokens in "
        "all); task inputs are never truncated"
    )


def test_a_plan_reads_each_source_and_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def counting(name: str, call: Any) -> None:
        def counted(*values: Any, **more: Any) -> Any:
            seen.append(name.split(".")[-1])
            return call(*values, **more)

        monkeypatch.setattr(name, counted)

    counting("knife.plan.sources.find_model", find_model)
    counting("knife.plan.prepared.tokenize_splits", tokenize_splits)
    counting("knife.data.digest.digests", digests)
    counting("knife.plan.sources.load_source", load_source)
    settings = ("seeds=[0, 1, 2]", "methods=[finetune, rationale_input, knife, step_by_step]")
    plan = plan_of(tmp_path, *settings)
    assert len(plan.stages) > 20
    once = {"find_model": 1, "tokenize_splits": 1, "digests": 3, "load_source": 1}
    assert Counter(seen) == once
    again = plan_of(tmp_path, *settings)
    assert Counter(seen) == once | {"find_model": 2}
    assert (again.key, again.stages, again.notes) == (plan.key, plan.stages, plan.notes)
    assert again.data == plan.data
