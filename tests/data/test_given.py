"""Data from Python: kept as files, by their content."""

import json
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from knife.config.run import Data
from knife.core.errors import UserError
from knife.data.given import write_given
from knife.data.source import load_source

ROWS = [
    {"stem": f"is {n} even ?", "choices": ["yes", "no"], "answer": "no" if n % 2 else "yes"}
    for n in range(30)
]
EXAMPLES = [{"question" if key == "stem" else key: row[key] for key in row} for row in ROWS]


@pytest.mark.parametrize(
    "rows",
    [
        EXAMPLES,
        (row for row in EXAMPLES),
        datasets.Dataset.from_list(ROWS),
        pandas.DataFrame(ROWS),
        {"train": ROWS[:20], "validation": pandas.DataFrame(ROWS[20:])},
        datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)),
    ],
)
def test_rows_of_any_kind(tmp_path: Path, rows: Any) -> None:
    if isinstance(rows, dict) and not isinstance(rows, datasets.DatasetDict):
        rows = rows | {"train": datasets.Dataset.from_list(ROWS[:20])}
    elif not isinstance(rows, datasets.Dataset | datasets.DatasetDict | pandas.DataFrame):
        rows = [{"id": n} | row for n, row in enumerate(rows)]
    path = write_given(rows, tmp_path)
    splits = load_source(Data(source=str(path)))
    assert len(splits.everything) == 30
    assert {e.choices[e.answer] for e in splits.everything} == {"yes", "no"}
    assert write_given(rows, tmp_path) == path
    assert [each.name for each in tmp_path.iterdir()] == [
        path.name if path.is_dir() else path.parent.name
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (7, "must be a path or a name, rows as mappings, a datasets.Dataset or a pandas frame"),
        ({"trian": ROWS}, "trian: must be named train, dev (or validation) or test"),
        ([{"id": object()}], "row 1: object is neither text, number, list nor mapping"),
    ],
)
def test_other_things_are_refused(tmp_path: Path, rows: Any, said: str) -> None:
    with pytest.raises(UserError) as caught:
        write_given(rows, tmp_path)
    (error,) = caught.value.errors
    assert error.startswith(f"data.source: {said}")
    assert list(tmp_path.iterdir()) == []


def test_a_run_on_rows(tmp_path: Path) -> None:
    import knife

    rows = [{"id": str(n), **row} for n, row in enumerate(EXAMPLES)]
    config = {
        "name": "rows",
        "model": {"teacher": "tiny-t5", "student": "tiny-t5"},
        "methods": ["finetune"],
        "seeds": [0],
        "student": {"epochs": 1},
        "scale": {"launcher": "process"},
        "track": None,
    }
    result = knife.run(config, data={"source": rows, "split_seed": 1}, store=tmp_path / "store")
    assert len(result.made) == 2
    source = json.loads((result.folder / "config.json").read_text())["data"]["source"]
    assert Path(source).is_file()
    again = knife.run(config, data={"source": source, "split_seed": 1}, store=tmp_path / "store")
    assert again.made == []
