"""`knife data score`: the scores of a small run's rationales, from start to end."""

import json
from pathlib import Path

import pytest
from command_fixtures import Command
from page_text import section
from small_run import SMALL

from knife.config.overrides import merge
from knife.config.run import parse
from knife.core.errors import UserError
from knife.plan.scores import plan_scores

CHANGES = {
    "methods": ["finetune", "knife"],
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
    assert found["made"] == [
        f"{word} of {name}" for name in names for word in ("model", "test model")
    ]
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

    again = command("data", "score", path)
    assert again.status == 0
    assert "stages to make" not in again.err
    assert "RQ, simulatability" in again.out


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
