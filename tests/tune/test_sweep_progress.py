"""A sweep's progress as it is shown: counts, the best, what was reused, and the time left."""

import time
from pathlib import Path

import pytest
from small_sweep import RATE, WEIGHT, planned

from knife.plan.plan import Plan, plan_run
from knife.plan.sources import SourceReader
from knife.terminal.progress import Progress
from knife.train.journal import Row
from knife.tune.progress.phase_progress import PhaseProgress, TrialProgress
from knife.tune.search.sweep_plan import SweepPlan

POINT = {RATE: 3e-3, WEIGHT: 30}


def ended(progress: PhaseProgress, *, finished: int = 0, pruned: int = 0, failed: int = 0) -> None:
    progress.ends.update({"finished": finished, "pruned": pruned, "failed": failed})


def at_work(seconds: float, **values: object) -> TrialProgress:
    return TrialProgress({"point": POINT}, since=time.monotonic() - seconds, **values)  # type: ignore[arg-type]


def test_trials_are_counted_by_how_they_ended() -> None:
    progress = PhaseProgress("search", total=16, trials=16, slots=2, before=2)
    assert progress.counts() == "2 of 16 trials done, 0 running"
    assert (
        PhaseProgress("search", total=1, trials=1, slots=2).counts()
        == "0 of 1 trial done, 0 running"
    )
    ended(progress, finished=3, pruned=2, failed=1)
    progress.running[9] = at_work(1)
    assert progress.counts() == "8 of 16 trials done (2 pruned, 1 failed), 1 running"


def test_time_left_is_that_of_the_trials_until_now(tmp_path: Path) -> None:
    sweep = planned(tmp_path, seeds={"more": [1]}).space.sweep
    progress = PhaseProgress("search", total=4, trials=4, slots=2)
    assert progress.left(sweep) == ""
    progress.running = {1: at_work(4), 2: at_work(6)}
    assert progress.left(sweep) == ""
    ended(progress, finished=1)
    progress.seconds = 10.0
    # 6 s and 4 s of the running ones and 10 s of the waiting one, two at a time; then 3 of more
    # seeds, 2 of finetune's settings and 6 of the final.
    assert progress.left(sweep) == "about 10 s left, 1 min of the sweep"
    progress = PhaseProgress("final", total=2, trials=4, slots=2, running={1: at_work(4)})
    ended(progress, finished=1)
    progress.seconds = 10.0
    assert progress.left(sweep) == "about 6 s left"
    progress.running = {1: at_work(12)}
    assert progress.left(sweep) == ""


def test_time_left_ends_with_the_budget(tmp_path: Path) -> None:
    sweep = planned(tmp_path, budget={"trials": 400, "hours": 0.01}, final=None).space.sweep
    progress = PhaseProgress("search", total=400, trials=400, slots=1, seconds=50.0)
    ended(progress, finished=5)
    assert progress.left(sweep) == "about 36 s left"


@pytest.fixture
def sweep_and_trial(tmp_path: Path) -> tuple[SweepPlan, Plan]:
    found = planned(tmp_path, set={"methods": ["knife"]})
    config = found.space.config(POINT)
    return found, plan_run(config, SourceReader(), elsewhere=True)


def test_a_trial_says_what_it_does(sweep_and_trial: tuple[SweepPlan, Plan]) -> None:
    sweep, plan = sweep_and_trial
    teacher = plan.stages[0]
    trial = at_work(70, progress=Progress(plan.stages, plan))
    progress = PhaseProgress("search", 4, 4, slots=1, running={3: trial})
    row: Row = {"step": 3, "time": 1.0, "metrics": {}}
    progress.look({(teacher.kind, teacher.key): row})
    point = "student.learning_rate=0.003 align.input.weight=30"
    assert trial.words(sweep.space) == f"teacher 3/4, 1 min  {point}"
    trial.score = 0.5
    assert trial.words(sweep.space) == f"teacher 3/4, dev 50.0 %, 1 min  {point}"
    unplanned = TrialProgress({"config": {}})
    assert unplanned.words(sweep.space) == "at work, 0 s"
