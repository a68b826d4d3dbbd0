"""Every method from config to answers, for questions with choices and for open ones."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pair import Made, made
from small_run import silent, small_config

from knife.config.methods import READS_RATIONALES
from knife.config.overrides import merge, read_overrides
from knife.core.errors import UserError
from knife.data.batches import Rows, collate
from knife.data.example import Example
from knife.data.jsonl import write_examples
from knife.data.tokenizing import tokenize
from knife.data.tokens import bare_rationale
from knife.inference.file import predict
from knife.models.generation import Prefix
from knife.models.tokenizer import load_tokenizer
from knife.pipeline.run import conclude, run
from knife.plan.plan import plan_run
from knife.plan.steps import total_steps
from knife.train.stage_context import load_published

METHODS = [
    "finetune",
    "explain_then_answer",
    "answer_then_explain",
    "rationale_input",
    "step_by_step",
    "internalize",
    "prompt",
    "retrieve",
]
HOMES = ("forest", "swamp", "desert", "mountain")
NAMES = ("gramap", "kebik", "drapif", "slokor")


def rows(result: Made) -> dict[str, list[dict[str, Any]]]:
    """The recorded predictions by method."""
    found = {}
    for member in result.plan.members:
        text = result.store.read("evaluate", member.evaluate.key, "predictions.jsonl")
        found[member.method] = [json.loads(line) for line in text.splitlines()]
    return found


def student(result: Made, method: str) -> Path:
    (member,) = [m for m in result.plan.members if m.method == method]
    return result.store.path("student", member.student.key)


def settings(result: Made, method: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((student(result, method) / "model/knife.json").read_text())
    return found


@pytest.fixture(scope="module", params=["encoder-decoder", "decoder"])
def choosing(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path
) -> Made:
    """Run all methods on a few questions with choices."""
    model = "tiny-t5" if request.param == "encoder-decoder" else str(tiny_llama)
    values = read_overrides(
        ["data.world.train=24", "data.world.dev=8", "data.world.test=12", "prompt.shots=2"]
    )
    values["model"] = {"teacher": model, "student": model}
    changes = merge(values, {"methods": METHODS, "student": {"epochs": 1}})
    return made(small_config(tmp_path_factory.mktemp("store"), **changes))


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Run all methods on open questions that can be memorised: dev and test repeat them."""
    folder = tmp_path_factory.mktemp("open")
    for split, count in (("train", 8), ("dev", 1), ("test", 1)):
        examples = [
            Example(
                f"{split}-{name}-{turn}",
                f"which one is the home of a {name} ?",
                (f"the {home}",),
                0,
                f"you find a {name} in the {home} .",
            )
            for name, home in zip(NAMES, HOMES, strict=True)
            for turn in range(count)
        ]
        write_examples(folder / f"{split}.jsonl", examples)
    methods = ["finetune", "knife", "explain_then_answer", "answer_then_explain", "step_by_step"]
    training = {"epochs": 15, "batch_size": 8, "learning_rate": 3e-3, "evaluate_epochs": 5}
    changes = {
        "data": {"source": str(folder)},
        "methods": methods,
        "student": training,
        "align": {"output": {"weight": 1.0}},
    }
    return made(small_config(tmp_path_factory.mktemp("store"), **changes))


@pytest.mark.parametrize("method", METHODS)
def test_a_student_answers_as_the_run_recorded(choosing: Made, method: str, tmp_path: Path) -> None:
    recorded = rows(choosing)[method]
    assert len(recorded) == 12
    (splits,) = choosing.plan.data.values()
    test = tmp_path / "test.jsonl"
    write_examples(test, splits.test)
    found = predict(student(choosing, method), test)
    for own, row in zip(found.rows, recorded, strict=True):
        assert (own["id"], own["index"]) == (row["id"], row["choice"])
        assert own["probabilities"] == pytest.approx(row["probabilities"], abs=1e-5)
        assert own.get("rationale") == row.get("rationale")
    (accuracy,) = [
        m.accuracy for m in conclude(choosing.plan, choosing.store).methods if m.method == method
    ]
    assert accuracy == sum(row["right"] for row in recorded) / 12 == found.accuracy


def test_methods_differ_as_they_should(choosing: Made) -> None:
    recorded = rows(choosing)
    probabilities = [json.dumps([r["probabilities"] for r in own]) for own in recorded.values()]
    assert len(set(probabilities)) == len(METHODS)
    explains = {method for method, own in recorded.items() if any("rationale" in r for r in own)}
    assert explains == {"explain_then_answer", "answer_then_explain", "step_by_step"}
    unbound = {method for method in METHODS if not settings(choosing, method)["bottleneck"]}
    assert unbound == {"rationale_input"}
    untrained = {
        method
        for method in METHODS
        if json.loads((student(choosing, method) / "trained.json").read_text())["steps"] == 0
    }
    assert untrained == {"prompt"}


def test_a_rationale_after_a_choice_is_written_behind_that_choice(choosing: Made) -> None:
    """The model that chose goes on with the likeliest text behind the choice's tokens."""
    folder = student(choosing, "answer_then_explain") / "model"
    (splits,) = choosing.plan.data.values()
    tokenizer = load_tokenizer(folder, "model")
    tokens, _ = tokenize(splits.test, tokenizer, 256)
    backbone: Any = load_published(folder)
    most = settings(choosing, "answer_then_explain")["rationale_tokens"]
    said = rows(choosing)["answer_then_explain"]
    for number, row in enumerate(said[:4]):
        chosen = tokens[number].choice_ids[row["choice"]]
        batch = collate(tokens, Rows([number], [1.0]), tokenizer.pad_token_id or 0, False)
        prefix = Prefix([chosen], torch.device("cpu"))
        (whole,) = backbone.generate(batch, len(chosen) + most, 2, prefix=prefix)
        assert whole[: len(chosen)] == chosen
        text = tokenizer.decode(whole[len(chosen) :], skip_special_tokens=True)
        assert bare_rationale(text.strip()) == row["rationale"]


def test_a_second_run_finds_all_students(choosing: Made) -> None:
    assert run(choosing.plan.config, silent).made == []


def test_keys_hang_on_rationales_where_methods_read_them(tmp_path: Path) -> None:
    def keys(*overrides: str) -> dict[str, str]:
        values = merge(read_overrides(list(overrides)), {"methods": METHODS})
        plan = plan_run(small_config(tmp_path, **values))
        return {member.method: member.student.key for member in plan.members}

    plain = keys()

    def changed(*overrides: str) -> set[str]:
        return {method for method, key in keys(*overrides).items() if key != plain[method]}

    assert len(set(plain.values())) == len(METHODS)
    assert changed("data.rationale=shuffled") == READS_RATIONALES
    assert changed("prompt.shots=1") == {"prompt"}
    assert changed("step_by_step.weight=0.4") == {"step_by_step"}
    assert changed("internalize.tokens_each_epoch=1") == {"internalize"}
    assert changed("prompt.rationales=true") == {"prompt"}
    assert changed("student.epochs=7") == set(METHODS) - {"prompt"}


@pytest.mark.parametrize("method", ["finetune", "knife", "answer_then_explain", "step_by_step"])
def test_open_answers_are_learned_and_written(writing: Made, method: str) -> None:
    for row in rows(writing)[method]:
        assert row["right"], row
        assert row["f1"] == 1
        assert row["text"] == row["answer"]


@pytest.mark.parametrize("method", ["explain_then_answer", "answer_then_explain", "step_by_step"])
def test_a_rationale_is_written_beside_an_open_answer(writing: Made, method: str) -> None:
    for row in rows(writing)[method]:
        assert row["right"], row
        home = row["answer"].split()[-1]
        assert row["rationale"].endswith(f"in the {home}."), row
        assert row["rationale"].startswith("you find")


def test_open_questions_are_predicted_with_and_without_answers(
    writing: Made, tmp_path: Path
) -> None:
    file = tmp_path / "questions.jsonl"
    question = {"id": "a", "question": "which one is the home of a kebik ?"}
    file.write_text(json.dumps(question))
    found = predict(student(writing, "knife"), file)
    assert (found.accuracy, found.rows) == (None, [{"id": "a", "text": "the swamp"}])
    file.write_text(json.dumps(question | {"answer": "Swamp"}))
    assert predict(student(writing, "knife"), file).accuracy == 1
    file.write_text(json.dumps(question | {"choices": ["x", "y"]}))
    with pytest.raises(UserError, match="has choices, but the student was trained to generate"):
        predict(student(writing, "knife"), file)


def test_a_student_that_chooses_refuses_open_questions(choosing: Made, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"id": "a", "question": "q ?"}))
    with pytest.raises(UserError, match="has no choices, but the student was trained to choose"):
        predict(student(choosing, "finetune"), file)


def test_open_metrics_are_recorded(writing: Made) -> None:
    text = (student(writing, "knife") / "journal.jsonl").read_text()
    metrics = [json.loads(line)["metrics"] for line in text.splitlines()]
    dev = [own for own in metrics if "dev_f1" in own]
    assert len(dev) == 3
    assert dev[-1]["dev_accuracy"] == dev[-1]["dev_f1"] == 1
    assert any("output_alignment" in own for own in metrics)


@pytest.mark.parametrize(
    "method",
    ["explain_then_answer", "answer_then_explain", "step_by_step", "internalize", "prompt"],
)
def test_an_encoder_writes_nothing(tiny_bert: Path, tmp_path: Path, method: str) -> None:
    model = {"teacher": str(tiny_bert), "student": str(tiny_bert)}
    with pytest.raises(
        UserError, match=rf"^methods: students of {method} generate text, but model"
    ):
        plan_run(small_config(tmp_path, methods=[method], model=model))


def test_an_encoder_answers_no_open_question(
    writing: Made, tiny_bert: Path, tmp_path: Path
) -> None:
    model = {"teacher": str(tiny_bert), "student": str(tiny_bert)}
    data = {"source": writing.plan.config.data.source}
    with pytest.raises(UserError) as error:
        plan_run(small_config(tmp_path, methods=["finetune", "knife"], model=model, data=data))
    assert [message.split(",")[0] for message in error.value.errors] == [
        "data.source: has open questions"
    ] * 2
    assert {"model.student", "model.teacher"} <= set(" ".join(error.value.errors).split())


def test_a_prompt_without_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^prompt.shots: 80 of 80 questions \(100.0 %\) have no"):
        plan_run(small_config(tmp_path, methods=["prompt"], prompt={"shots": 40}))
    with pytest.raises(UserError, match=r"^prompt.shots: must be at most 40, the training"):
        plan_run(small_config(tmp_path, methods=["prompt"], prompt={"shots": 41}))
    plan = plan_run(small_config(tmp_path, methods=["retrieve"], data={"max_tokens": 40}))
    (note,) = [note for note in plan.notes if note.startswith("retrieve: ")]
    assert "have no room for the most similar training example in data.max_tokens=40" in note


def test_what_cannot_be_aligned_is_refused(writing: Made, tmp_path: Path) -> None:
    data = {"source": writing.plan.config.data.source}
    output = {"output": {"weight": 1, "target": "choices"}}
    with pytest.raises(UserError, match=r"^align.output.target: must be states, because an open"):
        plan_run(small_config(tmp_path, data=data, align=output))
    with pytest.raises(UserError, match=r"^align: knife with both weights 0"):
        small_config(tmp_path, align={"input": {"weight": 0}})


def test_a_prompt_needs_no_memory_for_a_training(tmp_path: Path) -> None:
    plan = plan_run(small_config(tmp_path, methods=["prompt", "finetune"]))
    prompted, trained = (member.student for member in plan.members)
    assert prompted.key not in plan.needs
    assert trained.key in plan.needs
    splits = plan.data[prompted.data]
    assert (total_steps(prompted, splits), total_steps(trained, splits)) == (0, 4)


def test_all_that_a_decoder_reads_and_writes_has_to_fit(tiny_gpt2: Path, tmp_path: Path) -> None:
    """A table of 512 positions must suffice for I, R and what each method generates after them."""

    def most(method: str) -> int:
        model = {"teacher": str(tiny_gpt2), "student": str(tiny_gpt2)}
        config = small_config(tmp_path, methods=[method], model=model, data={"max_tokens": 512})
        with pytest.raises(UserError) as error:
            plan_run(config)
        (message,) = error.value.errors
        return int(message.partition("must be at most ")[2].partition(",")[0])

    found = {m: most(m) for m in ("finetune", "step_by_step", "explain_then_answer")}
    assert found["finetune"] > found["step_by_step"] > found["explain_then_answer"]
