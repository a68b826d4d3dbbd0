"""What a phase's folder says of trials over several starts, and how long they took."""

from pathlib import Path
from typing import Any

import pytest
from made_up import a_space

from knife.tune.search import history
from knife.tune.search.begun import begun_trials, numbered
from knife.tune.search.history import History, TimeSpent, read_seconds
from knife.tune.search.trial import SCORE, trial_key

SPACE = a_space({"x": {"uniform": [0, 1]}})


def params(number: int, x: float = 0.5) -> dict[str, Any]:
    return {"number": number, "point": {"x": x}}


def start(folder: Path, given: dict[str, Any], *reports: dict[str, Any]) -> None:
    """What is left of a trial's start."""
    history = History(folder)
    history.started(trial_key(given), given)
    for each in reports:
        history.reported(trial_key(given), each)


def report(epoch: int, score: float, *, finished: bool = False) -> dict[str, Any]:
    scores = {"0": score} if finished else {}
    found = {SCORE: score, "epoch": epoch, "finished": finished, "timestamp": 1e9 + epoch}
    return found | {"scores": scores, "students": {"0": "key"} if finished else {}}


def test_starts_of_a_trial_are_one_trial(tmp_path: Path) -> None:
    start(tmp_path, params(1), report(1, 0.4), report(2, 0.5))
    start(tmp_path, params(1), report(2, 0.5), report(3, 0.6, finished=True))
    (found,) = begun_trials(tmp_path, SPACE)
    assert found.ended
    assert found.row.state == "finished"
    assert found.row.score == 0.6
    assert found.row.by_epoch == {1: 0.4, 2: 0.5, 3: 0.6}
    assert found.row.students == {0: "key"}


def test_a_trial_that_had_ended_stays_so_whatever_a_later_start_left(tmp_path: Path) -> None:
    start(tmp_path, params(1), report(3, 0.6, finished=True))
    start(tmp_path, params(1), report(1, 0.4))
    (found,) = begun_trials(tmp_path, SPACE)
    assert (found.row.state, found.row.score) == ("finished", 0.6)


def test_failed_pruned_stopped_and_cut(tmp_path: Path) -> None:
    start(tmp_path, params(1))
    start(tmp_path, params(2), report(1, 0.1))
    start(tmp_path, params(3), report(1, 0.4))
    History(tmp_path).failed(trial_key(params(1)), "no memory\nand more")
    History(tmp_path).pruned(trial_key(params(2)))
    # Cut by a kill: what came last, here and after another start.
    for _ in range(2):
        with (tmp_path / "history.jsonl").open("a") as file:
            file.write(f'{{"trial": "{trial_key(params(3))}", "rep')
        failed, pruned, stopped = begun_trials(tmp_path, SPACE)
        start(tmp_path, params(3))
    assert (failed.row.state, failed.row.score, failed.ended) == ("failed", None, True)
    assert failed.row.error == "no memory\nand more"
    assert (pruned.row.state, pruned.row.score, pruned.ended) == ("pruned", 0.1, True)
    assert (stopped.row.state, stopped.row.score, stopped.ended) == ("stopped", 0.4, False)


def test_trials_keep_their_numbers_and_others_get_free_ones(tmp_path: Path) -> None:
    wanted = [{"point": {"x": x}} for x in (0.1, 0.2, 0.3, 0.4)]
    first = numbered(wanted, [])
    assert [each["number"] for each in first] == [1, 2, 3, 4]
    start(tmp_path, first[3])
    start(tmp_path, first[1])
    begun = begun_trials(tmp_path, SPACE)
    # More points, in another order.
    found = numbered([wanted[3], {"point": {"x": 0.9}}, *wanted[:3]], begun)
    assert [each["number"] for each in found] == [4, 1, 3, 2, 5]


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_times_add_up_over_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(history, "time", clock)
    one, two = params(1), params(2)
    for given in (one, two):
        start(tmp_path, given)
    watch = TimeSpent(tmp_path)
    watch.started(trial_key(one))
    watch.started(trial_key(two))
    clock.now += 17
    watch.ended(trial_key(one))
    clock.now += 3
    watch.save(at_most_every=1)
    clock.now += 0.5
    # Too early to write again; then a kill.
    watch.save(at_most_every=1)
    clock.now += 1000
    watch = TimeSpent(tmp_path)
    watch.started(trial_key(two))
    clock.now += 9
    watch.ended(trial_key(two))
    watch.save()
    # The search itself ran for 20 and for 9 seconds.
    assert read_seconds(tmp_path) == (29, {trial_key(one): 17, trial_key(two): 29})
    assert [each.row.seconds for each in begun_trials(tmp_path, SPACE)] == [17, 29]
