"""Estimates of trainings account for what each method does."""

from pathlib import Path
from typing import get_args

import pytest
from small_run import small_config

from knife.config.methods import Method
from knife.plan.plan import plan_run
from knife.plan.sources import SourceReader
from knife.tune.estimate import Stopwatch


def test_every_method_is_measured_as_it_trains(tmp_path: Path) -> None:
    methods, reader, watch = get_args(Method), SourceReader(), Stopwatch()
    seconds = {}
    for method in methods:
        student = {"epochs": 100, "evaluate_epochs": 100}
        config = small_config(tmp_path, methods=[method], student=student)
        plan = plan_run(config, reader, elsewhere=True)
        seconds[method] = watch.seconds(plan.members[0].student, plan)
    assert min(seconds.values()) > 0
    # One evaluation on dev, while the others train for 200 steps.
    assert min(seconds, key=seconds.__getitem__) == "prompt"


def test_kinds_that_are_not_measured_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("knife.tune.estimate._MOST", 1)
    reader, watch = SourceReader(), Stopwatch()
    for method, unmeasured in (("finetune", 0), ("prompt", 1), ("prompt", 1), ("retrieve", 2)):
        plan = plan_run(small_config(tmp_path, methods=[method]), reader, elsewhere=True)
        watch.seconds(plan.members[0].student, plan)
        starts = [note.partition(":")[0] for note in watch.notes()]
        guess = f"time is a guess for {unmeasured} of {unmeasured + 1} kinds of training"
        assert starts == ([guess] if unmeasured else [])
