"""What is not public in MLflow, as seen in 3.17. Importing this module imports no MLflow."""

from typing import Any


def newest_metrics(data: Any) -> list[Any]:
    """The newest `Metric` of each name in a run's data: MLflow shows their values alone, and hides
    the steps, which say what it has already."""
    return list(data._metric_objs)
