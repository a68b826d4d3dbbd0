"""`knife data score`: the scores of a small run's rationales, from start to end."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_fixtures import Command
from page_text import section
from small_run import SMALL

from knife.config.overrides import merge
from knife.config.run import RunConfig, parse
from knife.core.errors import UserError
from knife.data.tokenizing import tokenize
from knife.method.objective import Objective
from knife.models.tokenizer import load_tokenizer
from knife.plan.scores import plan_scores
from knife.store.store import Store
from knife.train.context import PlainContext
from knife.train.evaluate import GenerationSpec, answer_split, probabilities
from knife.train.results import read_predictions
from knife.train.stage_context import load_published

CHANGES = {
    "methods": ["finetune", "knife", "answer_then_explain", "explain_then_answer"],
    "teacher": {"epochs": 1},
    "student": {"epochs": 1},
    "data": {"world": {"train": 20}},
}


@pytest.fixture(autouse=True)
def no_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_scores_use_what_the_run_has_and_are_kept_by_example(
    command: Command, tmp_path: Path
) -> None:
    config = merge(merge(SMALL, CHANGES), {"store": str(tmp_path / "store")})
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(config))
    ran = command("run", path, "--json")
    assert ran.status == 0, ran.err
    scored = command("data", "score", path, "--json")
    assert scored.status == 0, scored.err
    found = json.loads(scored.out)
    names = ("rationale alone", "vacuous rationale", "vacuous rationale and rationale")
    # Teacher and finetune are the run's.
    wrote = ("answer_then_explain seed 0", "explain_then_answer seed 0")
    assert set(found["made"]) == {
        *(f"{word} of {name}" for name in names for word in ("model", "test model")),
        *(f"test teacher with rationales of {student}" for student in wrote),
        *(f"test model of rationale alone with those of {student}" for student in wrote),
    }
    folder = Path(found["folder"])
    assert (folder / "verdict.json").is_file()
    # The run's report is updated.
    text = section((folder / "report.html").read_text(), "Gain against rationale quality")
    assert f"RQ, simulatability (points) {100 * found['scores']['rq']:+.1f} " in text
    lines = (folder / "rationale_scores.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    verdict = json.loads((folder / "verdict.json").read_text())
    accuracy = {method["method"]: method["accuracy"] for method in verdict["methods"]}
    scores = found["scores"]
    assert len(rows) == scores["examples"] == 20
    assert scores == json.loads((folder / "rationale_scores.json").read_text())
    assert scores["without"] == pytest.approx(accuracy["finetune"])
    assert scores["explained"] == pytest.approx(verdict["ceiling"]["with_rationale"])
    gain = sum(row["gain"] for row in rows) / len(rows)
    assert gain == pytest.approx(accuracy["knife"] - accuracy["finetune"])
    assert [relation["score"] for relation in scores["relations"]] == ["REV", "leak"]
    assert any("one seed" in note for note in scores["notes"])
    assert [each["method"] for each in found["written"]] == [w.partition(" ")[0] for w in wrote]
    for each in found["written"]:
        assert (each["seeds"], each["examples"]) == (1, 20)
        assert -100 <= each["rq_low"] <= each["rq"] <= each["rq_high"] <= 100
        assert f"{each['method']} {each['rq']:+.1f}" in text
    assert json.loads((folder / "written_scores.json").read_text()) == found["written"]
    check_what_was_written(parse(config), found["written"])

    again = command("data", "score", path)
    assert again.status == 0
    assert "stages to make" not in again.err
    assert "RQ, simulatability" in again.out


def check_what_was_written(config: RunConfig, written: list[dict[str, Any]]) -> None:
    """The teacher read what the student wrote, as `predict` would with a file of these."""
    plan, store = plan_scores(config), Store(config.store)
    test = plan.plan.data[plan.finetune[0].evaluate.data].test
    for each, scored in zip(plan.written, written, strict=True):
        said = {r["id"]: r for r in read_predictions(store, each.member.evaluate.key)}
        explained = {r["id"]: r for r in read_predictions(store, each.explained.key)}
        alone = {r["id"]: r for r in read_predictions(store, each.alone.key)}
        right = sum(row["right"] for row in explained.values()) / len(explained)
        finetune = read_predictions(store, plan.finetune[0].evaluate.key)
        without = sum(row["right"] for row in finetune) / len(finetune)
        assert scored["rq"] == pytest.approx(100 * (right - without))
        same = [said[name]["choice"] == alone[name]["choice"] for name in said]
        assert scored["consistency"] == pytest.approx(sum(same) / len(same))
        folder = store.path("teacher", plan.teacher.model_key) / "model"
        model = Objective(load_published(folder)).eval()
        examples = [replace(e, rationale=said[e.id]["rationale"] or None) for e in test]
        tokenizer = load_tokenizer(folder, "model")
        tokens, _ = tokenize(examples, tokenizer, config.data.max_tokens)
        ids = [e.id for e in examples]
        asking = GenerationSpec(rationale=True)
        answers = answer_split(model, tokens, ids, 0, PlainContext(), asking)
        for example, answer in zip(examples, answers, strict=True):
            shown = [round(p, 6) for p in probabilities(answer.scores)]
            assert shown == pytest.approx(explained[example.id]["probabilities"], abs=2e-6)


def test_a_run_without_what_scores_need_is_refused(tmp_path: Path) -> None:
    base = merge(merge(SMALL, CHANGES), {"store": str(tmp_path)})
    for changes, words in (
        ({"methods": ["knife"]}, "give methods=[finetune,knife]"),
        ({"methods": ["finetune"]}, "give methods=[finetune,knife]"),
    ):
        with pytest.raises(UserError, match="methods: ") as error:
            plan_scores(parse(merge(base, changes)))
        assert words in error.value.errors[0]


def test_a_test_split_without_rationales_is_refused(tmp_path: Path) -> None:
    rows = [
        {"id": f"{n}", "question": f"{n} ?", "choices": ["yes", "no"], "answer": n % 2}
        for n in range(30)
    ]
    for name, part, rationale in (
        ("train", rows[:20], "so it is ."),
        ("dev", rows[20:25], "so it is ."),
        ("test", rows[25:], None),
    ):
        text = "\n".join(json.dumps(row | {"rationale": rationale}) for row in part)
        (tmp_path / f"{name}.jsonl").write_text(text)
    config = merge(SMALL, CHANGES | {"data": {"source": str(tmp_path), "world": {}}})
    with pytest.raises(UserError) as error:
        plan_scores(parse(config | {"store": str(tmp_path / "store")}))
    (message,) = error.value.errors
    assert message.startswith("data.source: none of the 5 test examples has a rationale")
