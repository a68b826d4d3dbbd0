"""Estimates of trainings know what each method does."""

from pathlib import Path
from typing import get_args

from small_run import small_config

from knife.config.run import Method
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
    # One look at dev, where the others train 200 steps.
    assert min(seconds, key=seconds.__getitem__) == "prompt"
