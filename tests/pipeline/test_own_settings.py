"""A run whose methods search their own settings: the trials, the choice, and who says so."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from page_text import section
from small_run import small_config

from knife.config.run import RunConfig
from knife.pipeline.dry_run import DryRun, dry_run
from knife.pipeline.run import Result, run
from knife.pipeline.score import score
from knife.plan.events import Event, Made
from knife.store.store import Store
from knife.terminal.display import no_display
from knife.train.results import read_trained

# The last one is best here.
RATES, WEIGHTS = [1e-2, 3e-3, 1e-7], [3.0, 30.0]
FAST = {
    "name": "fast",
    "method": "knife",
    "student": {"learning_rate": 2e-2},
    "align": {"input": {"weight": {"search": WEIGHTS}}},
}


def config(store: Path) -> RunConfig:
    return small_config(
        store,
        methods=["finetune", "knife", FAST],
        model={"teacher": "tiny-llama", "student": "tiny-llama"},
        data={"world": {"train": 20, "dev": 40, "test": 10}},
        teacher={"epochs": 1},
        student={"epochs": 1, "learning_rate": {"search": RATES}},
        track=None,
    )


# Method, learning rate and weight of the input alignment.
Setting = tuple[str, float, float | None]


@dataclass(frozen=True)
class Searched:
    """A run that was interrupted between its trials and then resumed.

    Attributes:
        before: what a dry run said at the start.
        first: what the first start made, by kind and key, and when each was written.
        result: the result of the second start.
        order: kinds and labels of what the second start made.
    """

    config: RunConfig
    before: DryRun
    first: dict[Path, int]
    result: Result
    order: list[tuple[str, str]]

    @property
    def store(self) -> Store:
        return self.result.store


def artifacts(store: Path) -> dict[Path, int]:
    """Return the manifests of all stages in a store, and when each was written."""
    kinds = ("teacher", "states", "student", "evaluate")
    found = [path for kind in kinds for path in store.glob(f"{kind}/*/manifest.json")]
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    settings = config(tmp_path_factory.mktemp("searched") / "store")
    before = dry_run(settings)
    made: list[tuple[str, str]] = []

    @contextmanager
    def counting(*_: Any) -> Iterator[Callable[[Event], None]]:
        def hear(event: Event) -> None:
            if isinstance(event, Made):
                made.append((event.work.stages[0].kind, event.work.label))
                if len(made) == 4:
                    raise KeyboardInterrupt

        yield hear

    with pytest.raises(KeyboardInterrupt):
        run(settings, counting)
    first = artifacts(Path(settings.store))
    return Searched(settings, before, first, run(settings, counting), made[4:])


def trials(found: Searched) -> dict[Setting, list[str]]:
    """Return the keys of the trials in the store, by method, learning rate and weight."""
    by_setting = defaultdict(list)
    for path in found.store.root.glob("student/*/depends.json"):
        depends = json.loads(path.read_text())
        if depends["seed"] >= 1000:
            weight = depends.get("weights", {}).get("input")
            setting = (depends["method"], depends["training"]["learning_rate"], weight)
            by_setting[setting].append(path.parent.name)
    return by_setting


def test_each_method_trains_with_what_was_best_of_its_trials_on_dev(searched: Searched) -> None:
    found = trials(searched)
    settings: dict[str, list[Setting]] = {
        "finetune": [("finetune", rate, None) for rate in RATES],
        "knife": [("knife", rate, 30.0) for rate in RATES],
        "fast": [("knife", 2e-2, weight) for weight in WEIGHTS],
    }
    # As many trials as the others: its two settings have two seeds each.
    assert {setting: len(found[setting]) for each in settings.values() for setting in each} == {
        setting: 2 if method == "fast" else 1
        for method, each in settings.items()
        for setting in each
    }
    assert len(found) == 8

    def place(setting: Setting) -> tuple[float, float]:
        trained = [read_trained(searched.store, "student", key) for key in found[setting]]
        return fmean(t["dev_accuracy"] for t in trained), -fmean(t["dev_loss"] for t in trained)

    for member in searched.result.plan.members:
        student = member.student
        assert student.seed == 0
        weight = student.align.input.weight if student.align else None
        chosen = (student.method, student.training.learning_rate, weight)
        places = {each: place(each) for each in settings[member.method]}
        assert chosen == max(places, key=places.__getitem__)
        if member.method != "fast":
            assert chosen[1] != RATES[0], places


def test_trials_share_the_teacher_and_nothing_is_made_twice(searched: Searched) -> None:
    kinds = [path.parts[-3] for path in searched.first]
    assert sorted(kinds) == ["states", "student", "student", "teacher"]
    # The second start has left alone what the first made.
    now = artifacts(searched.store.root)
    assert {path: now[path] for path in searched.first} == searched.first
    assert {path.parent.name for path in searched.first}.isdisjoint(
        stage.key for stage in searched.result.made
    )
    assert [kind for kind, _ in searched.order].count("teacher") == 0
    assert len(now) == len(searched.first) + len(searched.result.made)
    again = run(searched.config, no_display)
    assert again.made == []
    assert again.plan.key == searched.result.plan.key


def test_no_trial_looks_at_the_test_split(searched: Searched) -> None:
    keys = {key for keys in trials(searched).values() for key in keys}
    assert len(keys) == 10
    asked = [json.loads(path.read_text())["model"]
             for path in searched.store.root.glob("evaluate/*/depends.json")]  # fmt: skip
    assert len(asked) == 3 + 2
    assert keys.isdisjoint(asked)
    # All of the trials come before all of the run.
    last = max(n for n, (_, label) in enumerate(searched.order) if label.startswith("trial of "))
    assert all(kind != "evaluate" for kind, _ in searched.order[:last])


def test_it_is_told_wherever_results_are(searched: Searched) -> None:
    result = searched.result
    rates = {m.method: m.student.training.learning_rate for m in result.plan.members}
    align = result.plan.members[2].student.align
    assert align
    weight = align.input.weight
    said = (
        "Each method has its own settings, the best of its trials on dev: "
        f"finetune student.learning_rate={rates['finetune']:.4g} (3 trials: 3 settings, seed "
        f"1000); knife student.learning_rate={rates['knife']:.4g} (3 trials: 3 settings, seed "
        f"1000); fast align.input.weight={weight:.4g} (4 trials: 2 settings, seeds 1000, 1001)."
    )
    assert said in result.verdict.notes
    assert said in json.loads((result.folder / "verdict.json").read_text())["notes"]
    for member in result.plan.members:
        card = (result.store.path("student", member.student.key) / "README.md").read_text()
        assert said in card
        assert f"| student.learning_rate | {rates[member.method]} |" in card
    text = section((result.folder / "report.html").read_text(), "Decided before the run")
    (best,) = trials(searched)["knife", rates["knife"], 30.0]
    accuracy = 100 * read_trained(result.store, "student", best)["dev_accuracy"]
    row = f"knife student.learning_rate={rates['knife']:.4g} {accuracy:.1f} {accuracy:.1f} 1000 yes"
    assert row in text
    assert text.count(" yes ") == 3
    record = json.loads((result.folder / "run.json").read_text())
    assert {m["method"]: m["params"]["student.learning_rate"] for m in record["members"]} == {
        name: json.dumps(rate) for name, rate in rates.items()
    }
    assert record["params"]["student.learning_rate.search"] == json.dumps(RATES)
    # What was given gives the same run again.
    given = json.loads((result.folder / "config.json").read_text())
    assert given["student"]["learning_rate"] == {"search": RATES}


def test_a_dry_run_shows_the_trials_and_then_the_choice(searched: Searched) -> None:
    labels = [stage.label for stage in searched.before.stages]
    assert labels.index("trial of knife (student.learning_rate=0.01) seed 1000") < labels.index(
        "knife seed 0"
    )
    assert len([label for label in labels if label.startswith("trial of ")]) == 10
    assert {stage.state for stage in searched.before.stages} == {"to make"}
    (note,) = [note for note in searched.before.notes if "not decided yet" in note]
    assert "until the 12 stages before them are made" in note
    after = dry_run(searched.config)
    assert {stage.state for stage in after.stages} == {"in the store"}
    assert not [note for note in after.notes if "not decided yet" in note]
    assert searched.result.verdict.notes[0] in after.notes
    planned = {stage.key for stage in after.stages}
    assert {member.student.key for member in searched.result.plan.members} < planned


def test_scores_of_its_rationales_use_the_students_that_were_chosen(searched: Searched) -> None:
    found = score(searched.config, no_display)
    assert found.folder == searched.result.folder
    assert found.made == [
        f"{word} of {name}"
        for name in ("rationale alone", "vacuous rationale", "vacuous rationale and rationale")
        for word in ("model", "test model")
    ]


def test_a_setting_with_which_a_trial_diverges_is_not_chosen(tmp_path: Path) -> None:
    rates = [1e30, 1e-3]
    result = run(
        small_config(
            tmp_path,
            methods=["finetune"],
            data={"world": {"train": 20, "dev": 10, "test": 10}},
            student={"epochs": 1, "learning_rate": {"search": rates}},
            track=None,
        ),
        no_display,
    )
    assert result.plan.members[0].student.training.learning_rate == 1e-3
    # A trial that fails is no failure of the run, but is told.
    assert result.failures == []
    start = "trial of finetune (student.learning_rate=1e+30) seed 1000: "
    assert any(note.startswith(start) for note in result.plan.notes)
    said = "student.learning_rate=0.001 (2 trials: 2 settings, seed 1000; 1 could not be made)"
    assert said in result.verdict.notes[0]
    text = section((result.folder / "report.html").read_text(), "Decided before the run")
    assert "finetune student.learning_rate=1e+30 failed 1000" in text
