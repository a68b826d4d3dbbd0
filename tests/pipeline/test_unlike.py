"""Teacher and student of unlike tokenizers and of two families: what is refused, and what works."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pair import Made, made
from safetensors import safe_open
from safetensors.torch import load_file
from small_run import small_config

from knife.config.run import RunConfig, World
from knife.core.errors import UserError
from knife.data.creatures import creatures
from knife.data.cutting import input_lengths
from knife.data.token_table import TokenTable
from knife.models.source import EMBEDDED
from knife.models.tokenizer import load_tokenizer
from knife.plan.memory import MemoryEstimate
from knife.plan.plan import Plan, plan_run
from knife.plan.stage import StatesStage

WORDS = {"input": {"tokens": "words"}}


WORLD = {"creatures": 64, "train": 40, "dev": 20, "test": 20}


def pair(store: Path, teaches: Path | str, learns: Path | str, **changes: Any) -> RunConfig:
    model = {"teacher": str(teaches), "student": str(learns)}
    return small_config(store, model=model, **changes)


def unlike(store: Path, learns: Path | str = "tiny-llama", **changes: Any) -> RunConfig:
    return pair(store, "tiny-t5", learns, **changes)


def errors(config: RunConfig) -> list[str]:
    with pytest.raises(UserError) as caught:
        plan_run(config)
    return caught.value.errors


@pytest.mark.parametrize("tokens", ["all", "content"])
def test_states_at_tokens_are_refused_with_what_to_set(tmp_path: Path, tokens: str) -> None:
    why = "teacher and student split task inputs or choices into different tokens"
    (error,) = errors(unlike(tmp_path, align={"input": {"tokens": tokens}}))
    assert error == (
        f"align.input.tokens: is {tokens!r}, but {why}, so their states cannot be compared token "
        "by token; set it to words or to mean, or use models with the same tokenizer (vocabulary "
        "sizes may differ, as long as these examples become the same tokens)"
    )
    both = errors(unlike(tmp_path, align={"input": {"tokens": tokens}, "output": {"weight": 1}}))
    answers = (
        f"align.output.target: is 'states', but {why}, so their answers have no states in common; "
        "set it to choices, or align.output.weight to 0"
    )
    assert both == [error, answers]
    # What is not aligned needs nothing in common.
    choices = {"input": {"tokens": tokens, "weight": 0}, "output": {"weight": 1}}
    assert errors(unlike(tmp_path, align=choices)) == [answers]
    choices["output"] = {"weight": 1, "target": "choices"}
    assert plan_run(unlike(tmp_path, align=choices)).members
    assert plan_run(unlike(tmp_path, methods=["finetune"])).members


def test_models_of_two_kinds_with_the_same_tokens_have_states_in_common(tmp_path: Path) -> None:
    """The tiny T5 and the tiny BERT of the package have one tokenizer."""
    assert plan_run(unlike(tmp_path, "tiny-bert")).members
    assert errors(unlike(tmp_path, "tiny-bert", align={"output": {"weight": 1}})) == [
        "align.output.target: is 'states', but 't5' and 'bert' are models of two kinds, so their "
        "answers have no states in common; set it to choices, or align.output.weight to 0"
    ]


ALIGNED: dict[str, dict[str, Any]] = {
    "words": {"input": {"tokens": "words"}, "output": {"weight": 1, "target": "choices"}},
    "mean": {"input": {"tokens": "mean", "layers": "uniform", "distance": "cosine"}},
}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Made:
    """A T5 teaches a Llama whose tokenizer splits words into other pieces, by stored states and
    online."""
    methods: list[dict[str, Any]] = [
        {"name": f"{name}-{states}", "method": "knife", "align": {**align, "states": states}}
        for name, align in ALIGNED.items()
        for states in ("stored", "online")
    ]
    student = {"epochs": 4, "batch_size": 20, "learning_rate": 3e-3}
    config = unlike(tmp_path_factory.mktemp("store"), tiny_llama, methods=methods, student=student)
    return made(config)


def journal(run: Made, name: str) -> list[dict[str, float]]:
    """Return the metrics of each epoch of a student."""
    (member,) = [member for member in run.plan.members if member.method == name]
    folder = run.store.path("student", member.student.key)
    lines = map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
    return [line["metrics"] for line in lines if "input_alignment" in line.get("metrics", {})]


@pytest.mark.parametrize("name", ALIGNED)
def test_stored_and_online_teacher_train_the_same_student(whole_run: Made, name: str) -> None:
    stored, online = (journal(whole_run, f"{name}-{states}") for states in ("stored", "online"))
    assert len(stored) == len(online) > 1
    names = [part for part in stored[0] if part.endswith("loss") or "alignment" in part]
    assert {"loss", "task_loss", "input_alignment"} < set(names)
    assert ("output_alignment" in names) == (name == "words")
    for one, other in zip(stored, online, strict=True):
        assert [one[part] for part in names] == pytest.approx(
            [other[part] for part in names], rel=1e-5
        )
    # The student comes nearer to its teacher.
    assert 0 < stored[-1]["input_alignment"] < stored[0]["input_alignment"]


def test_a_student_answers_without_its_teacher(whole_run: Made) -> None:
    for member in whole_run.plan.members:
        folder = whole_run.store.path("evaluate", member.evaluate.key)
        assert len((folder / "predictions.jsonl").read_text().splitlines()) == 20
        student = whole_run.store.path("student", member.student.key)
        saved = load_file(student / "model" / "model.safetensors")
        assert not [name for name in saved if "projection" in name]


def states_of(plan: Plan) -> list[StatesStage]:
    return [stage for stage in plan.stages if isinstance(stage, StatesStage) and stage.stored]


def test_states_are_of_the_teachers_tokens_and_shared(whole_run: Made) -> None:
    plan, store = whole_run.plan, whole_run.store
    teacher, student = plan.members[0].student.teacher_tokens, plan.members[0].student.tokens
    tables = [
        TokenTable.open(store.path("tokens", key) / "train.arrow") for key in (teacher, student)
    ]
    assert (tables[0].input_lengths != tables[1].input_lengths).any()
    for stage in states_of(plan):
        size, lengths = 0, torch.zeros(len(tables[0]), dtype=torch.int64)
        for path in store.path("states", stage.key).glob("shard-*"):
            with safe_open(path, framework="pt") as file:
                found = {name: file.get_tensor(name) for name in ("values", "rows", "end")}
            size += sum(each.numel() * each.element_size() for each in found.values())
            lengths[found["rows"]] = found["end"].diff(prepend=torch.zeros(1, dtype=torch.int64))
        # The plan knows their size to the byte.
        assert plan.needs[stage.key] == size
        if isinstance(stage.part, int):
            assert lengths.tolist() == tables[0].input_lengths.tolist()
    # Of the last layer, whose states both variants read, there is one artifact.
    by_name = {member.method: member.student.states for member in plan.members}
    last = max(part for part in by_name["mean-stored"] if isinstance(part, int))
    assert by_name["mean-stored"][last] == by_name["words-stored"][last]


def test_each_models_memory_is_that_of_its_own_tokens(tmp_path: Path, tiny_llama: Path) -> None:
    """As in runs of two equal models."""
    student = str(tiny_llama)
    plan = plan_run(unlike(tmp_path, student, align=WORDS))
    taught = plan_run(unlike(tmp_path, "tiny-t5"))
    own = plan_run(
        small_config(tmp_path, model={"teacher": student, "student": student}, methods=["finetune"])
    )
    assert plan.teacher
    assert taught.teacher
    assert plan.teacher.key == taught.teacher.key
    assert plan.needs[plan.teacher.key] == taught.needs[taught.teacher.key]
    (stage,), (same,) = states_of(plan), states_of(taught)
    assert (stage.key, plan.needs[stage.key]) == (same.key, taught.needs[same.key])
    one, alone, other = (each.needs[each.members[0].student.key] for each in (plan, own, taught))
    assert isinstance(one, MemoryEstimate)
    assert isinstance(alone, MemoryEstimate)
    assert isinstance(other, MemoryEstimate)
    assert one.activations == alone.activations != other.activations
    assert one.teacher == other.teacher > 0


@pytest.fixture(scope="module")
def longest(tiny_llama: Path) -> dict[str, int]:
    """The number of tokens of the longest task input of the small run's data, by model."""
    examples = [e for part in creatures(World(**WORLD)).parts.values() for e in part]
    folders = {"t5": EMBEDDED["tiny-t5"], "llama": tiny_llama}
    found = {
        name: max(input_lengths(examples, [load_tokenizer(folder, "model")]))
        for name, folder in folders.items()
    }
    assert found["t5"] < found["llama"]
    return found


def test_a_limit_is_said_to_be_too_low_for_the_model_whose_tokens_are_more(
    tmp_path: Path, tiny_llama: Path, longest: dict[str, int]
) -> None:
    changes: dict[str, Any] = {"data": {"max_tokens": longest["t5"]}, "align": WORDS}
    for key, models in (
        ("model.student", ("tiny-t5", tiny_llama)),
        ("model.teacher", (tiny_llama, "tiny-t5")),
    ):
        (error,) = errors(pair(tmp_path, *models, **changes))
        assert f"longer than {longest['t5']} tokens (the longest has {longest['llama']})" in error
        assert error.endswith(f" (tokens of {key})")
    changes["data"] = {"max_tokens": 8}
    found = errors(unlike(tmp_path, tiny_llama, **changes))
    ends = [error.rpartition(" (")[2] for error in found]
    assert ends == ["tokens of model.student)", "tokens of model.teacher)"]
    # Of equal tokenizers, it is one error.
    (error,) = errors(unlike(tmp_path, "tiny-bert", **changes))
    assert "tokens of" not in error


def test_positions_are_those_of_each_model(
    tmp_path: Path, tiny_bert: Path, tiny_llama: Path
) -> None:
    """The tiny BERT has 256 positions; the Llama has 512, and an answer takes 8 of them: ` answer:`
    6, ` yes` and the end one each."""
    config = pair(tmp_path, tiny_bert, tiny_llama, data={"max_tokens": 300}, align=WORDS)
    assert errors(config) == [
        "data.max_tokens: must be at most 256, the positions of model.teacher, but got 300"
    ]
    assert plan_run(pair(tmp_path, tiny_bert, tiny_llama, align=WORDS)).members
    # The student's answers have two tokens, and no positions.
    assert errors(pair(tmp_path, tiny_llama, "tiny-t5", data={"max_tokens": 505}, align=WORDS)) == [
        "data.max_tokens: must be at most 504, the positions of model.teacher, less 8 tokens for "
        "the longest answer, but got 505"
    ]


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_what_is_too_long_for_one_model_is_left_out_for_all_methods(
    tmp_path: Path, tiny_llama: Path, longest: dict[str, int], role: str
) -> None:
    models = ("tiny-t5", tiny_llama) if role == "student" else (tiny_llama, "tiny-t5")
    limit = longest["llama"] - 6
    data = {"max_tokens": limit, "too_long": "drop"}
    methods = ["finetune", "knife"]
    plan = plan_run(pair(tmp_path, *models, methods=methods, align=WORDS, data=data))
    (splits,) = plan.data.values()
    tokenizer = load_tokenizer(tiny_llama, "model")
    for name, whole in creatures(World(**WORLD)).parts.items():
        fits = [length <= limit for length in input_lengths(whole, [tokenizer])]
        assert 0 < sum(fits) < len(fits)
        kept = {example.id for example, fit in zip(whole, fits, strict=True) if fit}
        assert {example.id for example in splits.parts[name]} == kept
        assert splits.left_out[name] == len(whole) - len(kept)
