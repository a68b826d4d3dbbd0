"""`knife forecast`, and where its result is shown, with a small run from start to end."""

import json
from pathlib import Path

import pytest
from command_fixtures import Command, write_config
from page_text import section
from small_run import small_config

from knife.config.run import World
from knife.core.errors import UserError
from knife.data.creatures import creatures
from knife.data.jsonl import write_examples
from knife.data.source import load_source
from knife.data.treatment import corrupt
from knife.pipeline import forecast as pipeline
from knife.pipeline.dry_run import dry_run
from knife.pipeline.forecast import forecast_run
from knife.pipeline.run import run
from knife.plan.plan import plan_run
from knife.terminal.display import no_display


@pytest.fixture(autouse=True)
def no_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_forecast_is_kept_with_the_run_which_finds_the_teacher(
    command: Command, tmp_path: Path
) -> None:
    path = write_config(tmp_path, track=None)
    plain = command("forecast", path)
    assert plain.status == 0, plain.err
    assert plain.out.startswith("forecast: ")
    assert "the median one is stated by " in plain.out
    assert "stages to make" not in plain.err
    dry = command("run", path, "--dry-run")
    assert " ".join(plain.out.splitlines()[0].split()) in " ".join(dry.out.split())

    asked = command("forecast", path, "--teacher", "--json")
    assert asked.status == 0, asked.err
    found = json.loads(asked.out)
    assert found["made"] == [
        "teacher",
        "finetune seed 0",
        "teacher on dev",
        "teacher on dev without rationales",
    ]
    folder = Path(found["folder"])
    assert json.loads((folder / "forecast.json").read_text()) == found["forecast"]
    assert command("forecast", path, "--teacher").err.count("stages to make") == 0

    ran = command("run", path, "--json")
    assert ran.status == 0, ran.err
    result = json.loads(ran.out)
    assert "teacher" not in [stage["label"] for stage in result["made"]]
    text = section((folder / "report.html").read_text(), "Forecast")
    shares = {m["method"]: m["accuracy"] for m in result["verdict"]["methods"]}
    measured = 100 * (shares["knife"] - shares["finetune"])
    assert f"verdict {found['forecast']['verdict']} " in text
    assert f"measured gain (points) {measured:+.1f} " in text
    teacher = found["forecast"]["scores"]["with_rationale"]
    assert f"teacher on dev, with rationales (%) {100 * teacher:.1f} " in text


def test_the_teacher_is_asked_about_dev(tmp_path: Path) -> None:
    # The best epoch is the one that is best on dev, with rationales.
    config = small_config(tmp_path / "store")
    found = forecast_run(config, no_display, teacher=True)
    (trained,) = (tmp_path / "store" / "teacher").glob("*/trained.json")
    assert found.forecast.scores
    assert found.forecast.scores.with_rationale == json.loads(trained.read_text())["dev_accuracy"]


def test_the_teacher_that_is_asked_has_passed_its_gate_and_the_run_finds_the_forecast(
    tmp_path: Path,
) -> None:
    rates = {"search": [1e-3, 2e-3]}
    # At 1e-6, no teacher passes.
    teacher = {"epochs": 1, "learning_rate": 1e-6, "gate": {"right": 1, "below": "train"}}
    other = {"name": "other", "method": "knife", "teacher": {"learning_rate": 1e-7}}
    changes = {"teacher": teacher, "methods": ["finetune", "knife", other], "track": None}
    student = {"epochs": 1, "learning_rate": rates}
    config = small_config(tmp_path / "store", **changes, student=student)
    asked = forecast_run(config, no_display, teacher=True)
    # Of the first method alone.
    epochs = ["teacher", "teacher (2 epochs)", "teacher (4 epochs)"]
    assert asked.made[:3] == epochs
    assert asked.made[3:] == [
        "finetune seed 0",
        "teacher on dev",
        "teacher on dev without rationales",
    ]
    result = run(config, no_display)
    assert result.folder == asked.folder
    assert not set(epochs) & {stage.label for stage in result.made}
    # A run that searches nothing is kept beside it.
    plain = small_config(tmp_path / "store", **changes, student=student | {"learning_rate": 1e-3})
    assert plan_run(plain).key != result.plan.key
    text = section((result.folder / "report.html").read_text(), "Forecast")
    assert f"verdict {asked.forecast.verdict} " in text


def test_open_answers_have_no_expected_gain_without_the_teacher(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name, split in creatures(World(train=40, dev=20, test=20)).parts.items():
        rows = [
            {"id": e.id, "question": e.question, "rationale": e.rationale}
            | {"answer": e.choices[e.answer]}
            for e in split
        ]
        (data / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    config = small_config(tmp_path / "store", data={"source": str(data)}, track=None)
    result = run(config, no_display)
    found = forecast_run(config, no_display, teacher=False).forecast
    # No fact of so few recurs, whatever there is to gain.
    assert (found.verdict, found.expected) == ("unlikely", None)
    text = section((result.folder / "report.html").read_text(), "Forecast")
    assert "expected gain over finetune (points) unknown" in text


def test_a_run_without_what_a_forecast_needs_is_refused(tmp_path: Path) -> None:
    splits = load_source(small_config(tmp_path / "s").data)
    data = tmp_path / "data"
    data.mkdir()
    write_examples(data / "train.jsonl", splits.train)
    for name in ("dev", "test"):
        write_examples(data / f"{name}.jsonl", corrupt(splits.parts[name], "none", 0))
    for changes, teacher, words in (
        (
            {"methods": ["finetune"]},
            False,
            "methods: a forecast is about knife, which the run does",
        ),
        ({"data": {"rationale": "none"}}, False, "data: none of 40 training examples have a ratio"),
        (
            {"data": {"source": str(data)}},
            True,
            "data.source: none of the 20 dev examples has a ra",
        ),
    ):
        with pytest.raises(UserError) as error:
            forecast_run(small_config(tmp_path / "store", **changes), no_display, teacher=teacher)
        assert error.value.errors[0].startswith(words)
    without = forecast_run(
        small_config(tmp_path / "store", data={"source": str(data)}), no_display, teacher=False
    )
    assert without.forecast.features.own


def test_a_dry_run_without_knife_has_no_forecast(command: Command, tmp_path: Path) -> None:
    path = write_config(tmp_path, methods=["finetune"])
    done = command("run", path, "--dry-run", "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["forecast"] is None
    assert "forecast" not in command("run", path, "--dry-run").out


def test_a_dry_run_of_many_data_takes_only_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_MANY", 39)
    config = small_config(tmp_path / "store")
    assert dry_run(config).forecast is None
    found = forecast_run(config, no_display, teacher=False)
    assert dry_run(config).forecast == found.forecast


def test_checked_data_have_a_forecast(command: Command) -> None:
    words = ("data.world.train=40", "data.world.dev=20", "data.world.test=20")
    plain = command("data", "check", "creatures", *words)
    assert plain.out.splitlines()[-1].startswith("forecast: ")
    values = json.loads(command("data", "check", "creatures", *words, "--json").out)
    assert values["forecast"]["verdict"] in plain.out.splitlines()[-1]
    bare = command("data", "check", "creatures", *words, "data.rationale=none")
    assert bare.status == 0
    assert "forecast" not in bare.out
