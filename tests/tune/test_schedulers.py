"""Who ends trials early: after a restart the same reports lead to the same decisions."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from made_up import a_space
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from knife.tune.search.history import History
from knife.tune.search.schedulers import scheduler
from knife.tune.search.trial import SCORE, trial_key

EPOCHS = 9
Make = Callable[[], Any]
Report = Callable[[Any, "Trial", int, float], str]


@dataclass(eq=False)
class Trial:
    """What a scheduler may ask of Tune's trial."""

    number: int
    trial_id: str = ""
    config: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.config = {"number": self.number, "point": {"x": self.number / 7}}


@pytest.fixture(params=["asha", "median"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes the scheduler anew, as a new driver does, with the same folder."""
    sweep = a_space(
        {"x": {"uniform": [0, 1]}},
        scheduler={"name": request.param, "grace": 1, "reduction": 2},
    ).sweep
    return lambda: scheduler(sweep, EPOCHS, tmp_path)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Has a scheduler judge a report, which is then noted, as Ray Tune's callbacks do."""

    def made(judge: Any, trial: Trial, epoch: int, score: float) -> str:
        result = {"epoch": epoch, SCORE: score}
        answer = str(judge.on_trial_result(None, trial, result))
        History(tmp_path).reported(trial_key(trial.config), result)
        return answer

    return made


def reports() -> list[tuple[int, int, float]]:
    """Trial, epoch and score: twelve trials, three at a time, each better with every epoch."""
    draw = random.Random(0)
    found = []
    for group in range(4):
        for epoch in range(1, EPOCHS + 1):
            for trial in draw.sample(range(3 * group, 3 * group + 3), 3):
                found.append((trial, epoch, draw.random() / 2 + epoch / 18))
    return found


def play(
    judge: Any, report: Report, steps: list[tuple[int, int, float]], ended: set[int]
) -> list[tuple[int, int, str]]:
    """The answers to reports of trials that are not ended by them."""
    answers = []
    for trial, epoch, score in steps:
        if trial not in ended:
            answer = report(judge, Trial(trial, f"of-{id(judge)}-{trial}"), epoch, score)
            answers.append((trial, epoch, answer))
            if answer == TrialScheduler.STOP:
                ended.add(trial)
    return answers


def test_decisions_are_the_same_after_a_kill_at_any_report(
    make: Make, report: Report, tmp_path: Path
) -> None:
    ended: set[int] = set()
    whole = play(make(), report, reports(), ended)
    assert 2 < len(ended) < 12
    for kill in range(0, len(whole), 7):
        (tmp_path / "history.jsonl").unlink()
        ended = set()
        before = play(make(), report, reports()[:kill], ended)
        # Those that ran start again, under other names and from their first epoch.
        judge = make()
        for trial, epoch, answer in before:
            if trial not in ended:
                score = next(s for t, e, s in reports() if (t, e) == (trial, epoch))
                assert report(judge, Trial(trial, "again"), epoch, score) == answer
        assert before + play(judge, report, reports()[kill:], ended) == whole


def test_a_report_that_a_kill_cut_off_is_judged_as_the_first_time(
    make: Make, report: Report, tmp_path: Path
) -> None:
    whole = play(make(), report, reports(), set())
    number, stopped = next(
        (n, step) for n, step in enumerate(whole) if step[2] == TrialScheduler.STOP
    )
    path = tmp_path / "history.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    score = json.loads(lines[number])["report"][SCORE]
    # The line of the report was not written, or not to its end; or it was, and its answer is lost.
    for end in ("", lines[number][:30], lines[number]):
        path.write_text("".join(lines[:number]) + end)
        assert report(make(), Trial(stopped[0]), stopped[1], score) == TrialScheduler.STOP
        assert path.read_text().count("\n") == number + 1 + (end == lines[number])


def test_a_trial_that_waits_does_not_make_another_pause(make: Make) -> None:
    """Ray's median rule pauses who has too few others to be judged by; ours has no way back."""
    judge, trials = make(), [Trial(1), Trial(2)]

    class Controller:
        def get_live_trials(self) -> list[Any]:
            waiting = Trial(3)
            waiting.status = "PENDING"  # type: ignore[attr-defined]
            return [waiting]

    for trial in trials:
        result = {"epoch": 1, SCORE: 0.5}
        assert judge.on_trial_result(Controller(), trial, result) == TrialScheduler.CONTINUE


def test_who_comes_to_the_last_epoch_is_finished(make: Make, report: Report) -> None:
    judge = make()
    for epoch in range(1, EPOCHS + 1):
        assert report(judge, Trial(1), epoch, 0.5) == TrialScheduler.CONTINUE


def test_lower_is_better_where_the_sweep_says_so(tmp_path: Path, report: Report) -> None:
    domains = {"x": {"uniform": [0, 1]}}
    settings = {"name": "asha", "grace": 1, "reduction": 2}
    sweep = a_space(domains, scheduler=settings, metric="dev_loss").sweep
    judge = scheduler(sweep, EPOCHS, tmp_path)
    assert report(judge, Trial(1), 1, 0.5) == TrialScheduler.CONTINUE
    assert report(judge, Trial(2), 1, 0.4) == TrialScheduler.CONTINUE
    assert report(judge, Trial(3), 1, 0.9) == TrialScheduler.STOP


def test_without_a_scheduler_nobody_is_ended(tmp_path: Path) -> None:
    sweep = a_space({"x": {"uniform": [0, 1]}}).sweep
    assert type(scheduler(sweep, EPOCHS, tmp_path)) is FIFOScheduler
