import random
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from made_up import ALIGNMENT, KNIFE, LOW_RESOURCE, a_row, a_space, alignment_rows, grid_rows
from matplotlib import pyplot
from PIL import Image

from knife.tune.report.curves import combinations, low_resource
from knife.tune.report.measured import Measured
from knife.tune.report.plots import plots, write_pictures
from knife.tune.report.view import View
from knife.tune.search.space import Space
from knife.tune.search.trials import TrialRow

ALL = {"history", "importance", "parallel", "slice", "contour", "pareto"}


@dataclass(frozen=True)
class Drawn:
    files: dict[str, Path]
    left_out: dict[str, str]


def drawn(space: Space, rows: list[TrialRow], folder: Path) -> Drawn:
    """Draw without a warning; every file must be a non-empty picture, and no figure stay open."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = plots(space, rows)
        files = write_pictures(found, folder)
    for path in files.values():
        pixels = np.asarray(Image.open(path).convert("L"), dtype=float)
        assert min(pixels.shape) > 150
        assert pixels.std() > 5
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    assert names == {f"{name}.png" for name in files}
    assert all(reason.endswith(".") for reason in found.left_out.values())
    return Drawn(files, found.left_out)


def test_all_plots_of_a_random_sweep(tmp_path: Path) -> None:
    found = drawn(ALIGNMENT, alignment_rows(), tmp_path)
    assert set(found.files) == ALL
    assert not found.left_out


def test_curves_of_a_grid(tmp_path: Path) -> None:
    found = drawn(LOW_RESOURCE, grid_rows(LOW_RESOURCE), tmp_path)
    assert set(found.files) == ALL - {"contour"} | {"curves"}
    assert "two keys" in found.left_out["contour"]


def test_combinations_of_a_grid_without_fractions(tmp_path: Path) -> None:
    space = a_space(
        {
            "model": {"grid": [{"teacher": "a", "student": "b"}, {"teacher": "b", "student": "b"}]},
            "align.input.layers": {"grid": [[[3, 3]], "last"]},
            "methods": {"grid": ["finetune", KNIFE]},
        },
        search="grid",
    )
    found = drawn(space, grid_rows(space), tmp_path)
    assert set(found.files) == {"history", "importance", "parallel", "pareto", "combinations"}
    assert set(found.left_out) == {"slice", "contour"}


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_has_finished(tmp_path: Path, count: int) -> None:
    rows = [a_row(n, p, None, "failed") for n, p in enumerate(ALIGNMENT.points()[:count], 1)]
    found = drawn(ALIGNMENT, rows, tmp_path)
    assert not found.files
    assert set(found.left_out) == ALL
    space = LOW_RESOURCE
    assert "curves" in drawn(space, [], tmp_path).left_out


def test_one_trial(tmp_path: Path) -> None:
    found = drawn(ALIGNMENT, alignment_rows(1), tmp_path)
    assert set(found.files) == {"history"}
    assert "two finished trials" in found.left_out["importance"]


def test_one_key_of_a_loss(tmp_path: Path) -> None:
    space = a_space({"student.learning_rate": {"choice": [1e-3, 3e-3, 1e-2]}}, metric="dev_loss")
    rows = [
        a_row(number, {"student.learning_rate": rate}, 0.5 + number / 7)
        for number, rate in enumerate([1e-3, 3e-3, 1e-2], 3)
    ]
    found = drawn(space, rows, tmp_path)
    assert set(found.files) == {"history", "slice", "pareto"}
    assert "one key" in found.left_out["importance"]


def test_equal_scores_and_a_key_that_never_varies(tmp_path: Path) -> None:
    rows = [replace(row, score=0.5) for row in alignment_rows() if row.state == "finished"]
    found = drawn(ALIGNMENT, rows, tmp_path)
    assert set(found.left_out) == {"importance", "contour"}
    assert "equal" in found.left_out["importance"]
    fixed = [replace(row, point={**row.point, "align.input.layers": "last"}) for row in rows]
    assert "parallel" in drawn(ALIGNMENT, fixed, tmp_path).files


@pytest.mark.parametrize("count", [2, 7])
def test_few_trials_have_no_importances(tmp_path: Path, count: int) -> None:
    rows = [row for row in alignment_rows() if row.state == "finished"][:count]
    found = drawn(ALIGNMENT, rows, tmp_path)
    assert "at least 8 finished trials" in found.left_out["importance"]
    assert View(ALIGNMENT, rows).importances == {}


def test_no_importances_where_good_trials_are_not_told_apart(tmp_path: Path) -> None:
    """Nearly all scores are equal: the best part of the trials has all of them."""
    rows = [row for row in alignment_rows() if row.state == "finished"]
    rows = [replace(row, score=0.5 + 0.1 * (row is rows[0])) for row in rows]
    found = drawn(ALIGNMENT, rows, tmp_path)
    assert "cannot be told" in found.left_out["importance"]


def test_importances_are_those_of_the_finished_trials_alone() -> None:
    rows = alignment_rows()
    found = View(ALIGNMENT, rows).importances
    assert sum(found.values()) == pytest.approx(1)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    finished = [row for row in rows if row.state == "finished"]
    assert View(ALIGNMENT, finished).importances == found
    bad = [replace(row, score=float("nan")) for row in rows if row.state != "finished"]
    assert View(ALIGNMENT, finished + bad).importances == found


@pytest.mark.parametrize(("metric", "best"), [("dev_accuracy", 0.7), ("dev_loss", 0.5)])
def test_no_trial_is_both_better_and_faster_than_those_of_the_front(
    metric: str, best: float
) -> None:
    space = a_space({"x": {"uniform": [0, 1]}}, metric=metric)
    made = [(0.6, 10.0), (best, 30.0), (1.2 - best, 20.0), (best, 40.0), (0.6, 10.0)]
    rows = [
        replace(a_row(n, {"x": n / 7}, score), seconds=seconds)
        for n, (score, seconds) in enumerate(made, 1)
    ]
    words = plots(space, rows).drawn["pareto"].words
    values = (60, 70) if metric == "dev_accuracy" else (0.6, 0.5)
    assert words.endswith(
        f"trial 1 has {values[0]} after 10 s; trial 2 has {values[1]} after 30 s."
    )


def test_pictures_of_before_go_where_there_are_none_now(tmp_path: Path) -> None:
    drawn(ALIGNMENT, alignment_rows(), tmp_path)
    assert set(drawn(ALIGNMENT, alignment_rows(1), tmp_path).files) == {"history"}


def test_state_of_pyplot_stays(tmp_path: Path) -> None:
    pyplot.switch_backend("svg")
    figure = pyplot.figure()
    style = dict(matplotlib.rcParams)
    try:
        drawn(ALIGNMENT, alignment_rows(4), tmp_path)
        assert matplotlib.get_backend() == "svg"
        assert pyplot.get_fignums() == [figure.number]
        assert pyplot.gcf() is figure
        assert dict(matplotlib.rcParams) == style
    finally:
        pyplot.close(figure)
        pyplot.switch_backend("agg")


def test_interval_over_seeds() -> None:
    row = replace(a_row(1, {"x": 1}), scores={0: 0.70, 1: 0.72, 2: 0.74})
    space = a_space({"x": {"choice": [1]}})
    found = Measured.of(space, [row]).estimate(row)
    # t = 4.303 at two degrees of freedom, standard error 2 / sqrt 3.
    assert found.mean == pytest.approx(72)
    assert found.high - found.mean == pytest.approx(4.303 * 2 / 3**0.5, abs=1e-3)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    tested = replace(row, tests={0: 0.5, 1: 1.0})
    found = Measured.of(space, [tested]).estimate(tested)
    assert (found.mean, found.low, found.high) == (75, 0, 100)
    both = Measured.of(space, [row, tested])
    assert not both.on_test
    assert both.note() == "mean of 3 seeds with its 95 % t-interval"
    alone = a_row(1, {"x": 1}, 0.6)
    assert Measured.of(space, [alone]).estimate(alone).low == 60
    assert "one seed" in Measured.of(space, [alone]).note()


def test_curves_show_each_method_at_each_fraction() -> None:
    figure = low_resource(Measured.of(LOW_RESOURCE, grid_rows(LOW_RESOURCE)))
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["5", "10", "30", "100"]
    assert axes.get_ylabel() == "test accuracy (%)"
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words == ["finetune", "knife-with-a-long-name", "teacher_init"]
    looks = {(line.get_color(), line.get_marker()) for line in legend.get_lines()}
    assert len({colour for colour, _ in looks}) == len({marker for _, marker in looks}) == 3
    assert all(len(container[0].get_xdata()) == 4 for container in axes.containers)


def test_curves_in_panels_where_they_are_many() -> None:
    domains: dict[str, Any] = {
        "data.source": {"grid": ["strategyqa", "openbookqa"]},
        "methods": {"grid": ["finetune", "knife", "teacher_init"]},
        "data.fraction": {"grid": [0.5, 1.0]},
        "align.input.layers": {"grid": ["last", "all"]},
    }
    space = a_space(domains, search="grid")
    figure = low_resource(Measured.of(space, grid_rows(space, seeds=1, tests=False)))
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert len(titles) == 4
    assert titles[1] == "source=strategyqa\nlayers=all"
    assert figure.axes[0].get_xscale() == "linear"
    assert len(figure.legends[0].get_texts()) == 3


def test_curves_show_the_best_of_a_continuous_key() -> None:
    space = a_space(
        {"data.fraction": {"choice": [0.1, 1.0]}, "student.learning_rate": {"uniform": [0, 1]}}
    )
    draws = random.Random(0)
    rows = [
        a_row(
            number,
            {"data.fraction": [0.1, 1.0][number % 2], "student.learning_rate": draws.random()},
            0.5 + number / 100,
        )
        for number in range(1, 9)
    ]
    figure = low_resource(Measured.of(space, rows))
    (container,) = figure.axes[0].containers
    assert list(container[0].get_ydata()) == pytest.approx([58, 57])
    assert not figure.legends


def test_combinations_are_at_most_so_many_bars() -> None:
    space = a_space(
        {"data.max_tokens": {"grid": list(range(64))}, "methods": {"grid": ["knife", "finetune"]}},
        search="grid",
    )
    rows = [a_row(n, p, 0.3 + n / 1000) for n, p in enumerate(space.points(), 1)]
    figure = combinations(Measured.of(space, rows))
    (axes,) = figure.axes
    assert len(axes.patches) == 40
    assert "the best 40 of 128" in figure.get_suptitle()
    assert axes.get_yticklabels()[-1].get_text() == "max_tokens=63, finetune"
