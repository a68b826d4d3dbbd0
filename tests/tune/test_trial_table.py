import csv
import io
import json
from dataclasses import replace
from pathlib import Path

from made_up import ALIGNMENT, LOW_RESOURCE, a_row, a_space, alignment_rows, grid_rows
from rich.console import Console

from knife.tune.report.table import render, write_csv
from knife.tune.search.labels import label, point_label, short_keys
from knife.tune.search.space import Space
from knife.tune.search.trials import TrialRow


def lines_of(space: Space, rows: list[TrialRow]) -> list[str]:
    console = Console(width=80, file=io.StringIO())
    console.print(render(space, rows))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in console.file.getvalue()
    return [" ".join(line.split()) for line in lines if line.strip()]


def test_keys_are_as_short_as_they_can_be() -> None:
    keys = [
        "align.input.weight",
        "align.output.weight",
        "student.learning_rate",
        "methods",
        "weight",
    ]
    assert list(short_keys(keys).values()) == [
        "input.weight",
        "output.weight",
        "learning_rate",
        "methods",
        "weight",
    ]


def test_labels_tell_values_apart() -> None:
    one, other = {"name": "a", "align": {"x": 1}}, {"name": "a", "align": {"x": 2}}
    values = [one, other, {"teacher": "/m/t5", "student": "b"}, "/m/t5", None, True, 0.1234567]
    domain = a_space({"methods": {"choice": values}}).sweep.space["methods"]
    words = [label(domain, value) for value in values]
    assert words[0] == json.dumps(one)
    assert words[1:] != [words[0]] * 6
    assert words[2:] == ["teacher:t5 student:b", "t5", "null", "true", "0.1235"]
    same_end = a_space({"x": {"choice": ["/a/m", "/b/m"]}}).sweep.space["x"]
    assert label(same_end, "/a/m") == "/a/m"


def test_label_of_a_point() -> None:
    point = LOW_RESOURCE.points()[1]
    assert point_label(LOW_RESOURCE, point, point) == "fraction=0.05, knife-with-a-long-name"
    assert point_label(LOW_RESOURCE, point, []) == ""


def test_best_first_and_the_others_below() -> None:
    lines = lines_of(ALIGNMENT, alignment_rows())
    trials = [line.split() for line in lines if "min" in line]
    assert trials[0] == ["1", "75.9", "finished", "1", "min", "22.88", "0.7152", "last", "0.001958"]
    assert [cells[0] for cells in trials[-4:]] == ["6", "12", "9", "4"]
    assert [cells[2] for cells in trials[-4:]] == ["pruned", "pruned", "stopped", "1"]
    assert trials[-1][:3] == ["4", "failed", "1"]
    scores = [float(cells[1]) for cells in trials if "finished" in cells]
    assert scores == sorted(scores, reverse=True)
    assert lines[-1] == "Trial 4 failed: ValueError: no such thing"


def test_score_of_several_seeds_and_names_of_methods() -> None:
    lines = lines_of(LOW_RESOURCE, grid_rows(LOW_RESOURCE))
    assert "12 77.6 ± 1.3 finished 6 min 1 teacher_init" in lines
    assert "2 55.7 ± 0.9 finished 1 min 0.05 knife-with-a-long-name" in lines


def test_loss_is_no_percentage() -> None:
    space = a_space({"student.learning_rate": {"uniform": [0, 1]}}, metric="dev_loss")
    rows = [a_row(1, {"student.learning_rate": 0.5}, 0.71234)]
    assert "1 0.7123 finished 1 min 0.5" in lines_of(space, rows)


def test_many_long_values_share_a_column() -> None:
    models = [{"teacher": "t5-large", "student": "t5-base"}, {"teacher": "a", "student": "b"}]
    space = a_space(
        {
            "data.source": {"grid": ["strategyqa", "openbookqa"]},
            "model": {"grid": models},
            "methods": {"grid": ["finetune", "teacher_init"]},
            "teacher.a_rather_long_name_of_a_key": {"grid": [1, 2, 3]},
        },
        search="grid",
    )
    lines = lines_of(space, grid_rows(space))
    text = " ".join(lines)
    assert "model=teacher:t5-large student:t5-base" in text
    assert lines[-1] == "4 more trials: 4 finished."


def test_unknown_many_errors_are_grouped() -> None:
    point = ALIGNMENT.points()[0]
    rows = [replace(a_row(n, point, None, "failed"), error=f"E{n % 7}\nmore") for n in range(1, 31)]
    rows[0] = replace(rows[0], error=None)
    lines = lines_of(ALIGNMENT, rows)
    text = " ".join(lines)
    assert "Trial 1 failed: unknown error" in text
    assert "Trials 2, 9, 16, 23 and 30 failed: E2" in text
    assert "Trials 6, 13, 20, 27, 7, 14, 21, 28, 8, 15, 22 and 29 failed in other ways." in text
    assert lines[-1] == "10 more trials: 10 failed."


def test_no_trials_and_markup_in_values() -> None:
    assert "trial accuracy (%) state time input" not in lines_of(ALIGNMENT, [])
    space = a_space({"methods": {"choice": ["[bold]x[/bold]", "y"]}})
    assert "[bold]x[/bold]" in " ".join(lines_of(space, [a_row(1, {"methods": "[bold]x[/bold]"})]))


def test_csv_has_everything(tmp_path: Path) -> None:
    rows = grid_rows(LOW_RESOURCE)
    point = LOW_RESOURCE.points()[1]
    rows[1] = replace(rows[1], students={0: "abc"}, by_epoch={1: 0.25}, point=point)
    rows[2] = replace(rows[2], state="failed", score=None, scores={}, tests={}, error="a\nb, c")
    path = tmp_path / "new" / "trials.csv"
    write_csv(LOW_RESOURCE, list(reversed(rows)), path)
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["number"] for row in found] == [str(number) for number in range(1, 13)]
    second, third = found[1], found[2]
    assert json.loads(second["methods"]) == point["methods"]
    assert float(second["data.fraction"]) == 0.05
    assert float(second["dev_accuracy"]) == rows[1].score
    assert float(second["dev_accuracy_seed_2"]) == rows[1].scores[2]
    assert float(second["test_accuracy_seed_0"]) == rows[1].tests[0]
    assert second["student_seed_0"] == "abc"
    assert json.loads(second["by_epoch"]) == {"1": 0.25}
    assert 0 < float(second["sd"]) < 0.05
    assert third["error"] == "a\nb, c"
    assert third["dev_accuracy"] == third["sd"] == third["test_accuracy_seed_0"] == ""
    assert [file.name for file in path.parent.iterdir()] == ["trials.csv"]
