"""A journal's metrics as MLflow shows them: curves by epoch, and details by optimizer step."""

from knife.train.journal import Row

# The curve by epoch shows the same loss as the evaluations on dev.
_TRAIN, _DEV = "task_loss", "dev_"


class Curves:
    """Turns the rows of one run's journals into rows for MLflow.

    epoch/train_loss, epoch/dev_loss, epoch/dev_accuracy, …   step: epochs trained
    train/loss, train/task_loss, train/learning_rate, …       step: optimizer steps

    `epoch/train_loss` is the mean task loss over the steps since the previous evaluation, without
    alignment terms, so that it is comparable with `epoch/dev_loss`. Metrics of rows without an
    epoch (an evaluation on test) keep their names.
    """

    def __init__(self) -> None:
        self._step = 0
        self._steps = 0
        self._sum = 0.0

    def rows(self, rows: list[Row]) -> list[Row]:
        """Return the rows for MLflow; when a journal starts again, so do the sums."""
        return [self._row(row) for row in rows]

    def _row(self, row: Row) -> Row:
        metrics = row["metrics"]
        if "epoch" not in row or not metrics:
            return row
        if any(name.startswith(_DEV) for name in metrics):
            found = {f"epoch/{name}": value for name, value in metrics.items()}
            if self._steps:
                found["epoch/train_loss"] = self._sum / self._steps
            self._steps, self._sum = 0, 0.0
            return {"step": round(row["epoch"]), "time": row["time"], "metrics": found}
        if row["step"] <= self._step:
            self._step = self._steps = 0
            self._sum = 0.0
        steps, self._step = row["step"] - self._step, row["step"]
        if _TRAIN in metrics:
            self._steps += steps
            self._sum += steps * metrics[_TRAIN]
        found = {f"train/{name}": value for name, value in metrics.items()}
        found["train/epoch"] = row["epoch"]
        return {"step": row["step"], "time": row["time"], "metrics": found}
