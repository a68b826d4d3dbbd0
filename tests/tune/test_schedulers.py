"""Who ends trials early: after a restart the same reports lead to the same decisions."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import a_space

from knife.tune.search.history import History
from knife.tune.search.schedulers import judge
from knife.tune.search.trial import SCORE, trial_key

EPOCHS = 9
Make = Callable[[], Any]
# Has a trial, by number, report a score after an epoch; returns whether it goes on.
Report = Callable[[Any, int, int, float], bool]


def key(trial: int) -> str:
    return trial_key({"number": trial, "point": {"x": trial / 7}})


@pytest.fixture(params=["asha", "median"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes the scheduler anew, as a new driver does, with the same folder."""
    sweep = a_space(
        {"x": {"uniform": [0, 1]}},
        scheduler={"name": request.param, "grace": 1, "reduction": 2},
    ).sweep
    return lambda: judge(sweep, EPOCHS, tmp_path)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """Has a scheduler judge a report, which is then noted, as a phase does."""

    def made(judge: Any, trial: int, epoch: int, score: float) -> bool:
        result = {"epoch": epoch, SCORE: score}
        goes_on = bool(judge.goes_on(key(trial), result))
        History(tmp_path).reported(key(trial), result)
        return goes_on

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
) -> list[tuple[int, int, bool]]:
    """The answers to reports of trials that are not ended by them."""
    answers = []
    for trial, epoch, score in steps:
        if trial not in ended:
            goes_on = report(judge, trial, epoch, score)
            answers.append((trial, epoch, goes_on))
            if not goes_on:
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
        # Those that ran start again, from their first epoch.
        judge = make()
        for trial, epoch, goes_on in before:
            if trial not in ended:
                score = next(s for t, e, s in reports() if (t, e) == (trial, epoch))
                assert report(judge, trial, epoch, score) == goes_on
        assert before + play(judge, report, reports()[kill:], ended) == whole


def test_a_report_that_a_kill_cut_off_is_judged_as_the_first_time(
    make: Make, report: Report, tmp_path: Path
) -> None:
    whole = play(make(), report, reports(), set())
    number, stopped = next((n, step) for n, step in enumerate(whole) if not step[2])
    path = tmp_path / "history.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    score = json.loads(lines[number])["report"][SCORE]
    # The line of the report was not written, or not to its end; or it was, and its answer is lost.
    for end in ("", lines[number][:30], lines[number]):
        path.write_text("".join(lines[:number]) + end)
        assert not report(make(), stopped[0], stopped[1], score)
        assert path.read_text().count("\n") == number + 1 + (end == lines[number])


def test_too_few_others_to_be_judged_by_end_nobody(make: Make, report: Report) -> None:
    """Ray's median rule may pause such a trial; ours has no way back."""
    judge = make()
    assert report(judge, 1, 1, 0.5)
    assert report(judge, 2, 1, 0.5)


def test_who_comes_to_the_last_epoch_is_finished(make: Make, report: Report) -> None:
    judge = make()
    for epoch in range(1, EPOCHS + 1):
        assert report(judge, 1, epoch, 0.5)


def test_lower_is_better_where_the_sweep_says_so(tmp_path: Path, report: Report) -> None:
    domains = {"x": {"uniform": [0, 1]}}
    settings = {"name": "asha", "grace": 1, "reduction": 2}
    sweep = a_space(domains, scheduler=settings, metric="dev_loss").sweep
    asha = judge(sweep, EPOCHS, tmp_path)
    assert report(asha, 1, 1, 0.5)
    assert report(asha, 2, 1, 0.4)
    assert not report(asha, 3, 1, 0.9)


def test_without_a_scheduler_nobody_is_ended(tmp_path: Path) -> None:
    sweep = a_space({"x": {"uniform": [0, 1]}}).sweep
    assert judge(sweep, EPOCHS, tmp_path) is None
