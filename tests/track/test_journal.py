import json
from pathlib import Path

import pytest

from knife.train.journal import Position, Row, read_rows


def line(step: int, **metrics: float) -> str:
    return json.dumps({"step": step, "epoch": step / 4, "time": 1e9 + step, "metrics": metrics})


def steps(rows: list[Row]) -> list[int]:
    return [row["step"] for row in rows]


def test_reads_only_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(line(1, loss=0.5) + "\n")
    rows, position = read_rows(path, Position())
    assert rows == [{"step": 1, "epoch": 0.25, "time": 1e9 + 1, "metrics": {"loss": 0.5}}]
    assert read_rows(path, position) == ([], position)
    with path.open("a") as file:
        file.write(line(2, loss=0.4) + "\n" + line(3, loss=0.3) + "\n")
    rows, position = read_rows(path, position)
    assert steps(rows) == [2, 3]


def test_every_cut_of_the_file_gives_every_row_once(tmp_path: Path) -> None:
    whole = "".join(line(step, loss=1 / step) + "\n" for step in range(1, 6)).encode()
    path = tmp_path / "journal.jsonl"
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        first, position = read_rows(path, Position())
        path.write_bytes(whole)
        rest, _ = read_rows(path, position)
        assert steps(first + rest) == [1, 2, 3, 4, 5]


def test_a_shrunk_file_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(line(step) + "\n" for step in (1, 2, 3)))
    _, position = read_rows(path, Position())
    path.write_text(line(1) + "\n")
    rows, position = read_rows(path, position)
    assert steps(rows) == [1]
    path.write_text("")
    rows, position = read_rows(path, position)
    assert (rows, position) == ([], Position())


def test_a_file_that_shrank_and_grew_past_the_old_place_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text("".join(line(step) + "\n" for step in (1, 2, 3)))
    _, position = read_rows(path, Position())
    # Steps 2 and 3 written again at another time; all lines keep their length.
    later = [line(1), *(line(step).replace("100000000", "200000000") for step in (2, 3, 4))]
    path.write_text("\n".join(later) + "\n")
    assert path.stat().st_size > position.offset
    rows, _ = read_rows(path, position)
    assert steps(rows) == [1, 2, 3, 4]


def test_not_a_number_and_no_epoch(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"step": 1, "time": 2.5, "metrics": {"loss": NaN}}\n')
    (row,), _ = read_rows(path, Position())
    assert "epoch" not in row
    assert row["metrics"]["loss"] != row["metrics"]["loss"]


def test_a_broken_line_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{line(1)}\n{{"step": 2, "ti\n[3]\n{line(4)}\n')
    rows, _ = read_rows(path, Position())
    assert steps(rows) == [1, 4]
    assert len(caplog.records) == 2
    assert str(path) in caplog.text


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_rows(tmp_path / "journal.jsonl", Position())
