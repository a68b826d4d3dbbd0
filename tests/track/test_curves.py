"""A journal's rows under MLflow's names."""

import pytest

from knife.track.curves import Curves
from knife.train.journal import Row


def trained(step: int, loss: float, per_epoch: int = 4) -> Row:
    metrics = {"loss": 10 * loss, "task_loss": loss}
    return {"step": step, "epoch": step / per_epoch, "time": 1.0 * step, "metrics": metrics}


def on_dev(step: int, loss: float, per_epoch: int = 4) -> Row:
    metrics = {"dev_loss": loss, "dev_accuracy": 0.5}
    return {"step": step, "epoch": step / per_epoch, "time": 1.0 * step, "metrics": metrics}


JOURNAL = [trained(3, 2.0), trained(4, 1.0), on_dev(4, 3.0), trained(8, 0.5), on_dev(8, 2.5)]


def test_train_and_dev_are_curves_over_the_same_epochs() -> None:
    rows = Curves().rows(JOURNAL)
    by_epoch = [(r["step"], r["metrics"]) for r in rows if "epoch/dev_loss" in r["metrics"]]
    assert by_epoch == [
        (1, {"epoch/dev_loss": 3.0, "epoch/dev_accuracy": 0.5, "epoch/train_loss": 7 / 4}),
        (2, {"epoch/dev_loss": 2.5, "epoch/dev_accuracy": 0.5, "epoch/train_loss": 0.5}),
    ]
    assert rows[0] == {
        "step": 3,
        "time": 3.0,
        "metrics": {"train/loss": 20.0, "train/task_loss": 2.0, "train/epoch": 0.75},
    }


@pytest.mark.parametrize("cut", range(1, 5))
def test_a_journal_in_parts_or_from_its_beginning_again_has_the_same_curves(cut: int) -> None:
    whole = Curves().rows(JOURNAL)
    parts = Curves()
    assert parts.rows(JOURNAL[:cut]) + parts.rows(JOURNAL[cut:]) == whole
    cut_back = Curves()
    cut_back.rows(JOURNAL[:cut])
    assert cut_back.rows(JOURNAL) == whole


def test_rows_without_an_epoch_keep_their_names() -> None:
    row: Row = {"step": 0, "time": 1.0, "metrics": {"test_accuracy": 0.5}}
    note: Row = {"step": 4, "epoch": 1.0, "time": 1.0, "metrics": {}, "note": "went on"}
    assert Curves().rows([row, note]) == [row, note]


def test_a_student_that_is_not_trained_has_no_loss_of_training() -> None:
    (row,) = Curves().rows([on_dev(0, 1.0)])
    assert row["metrics"] == {"epoch/dev_loss": 1.0, "epoch/dev_accuracy": 0.5}
