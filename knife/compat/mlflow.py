"""Private parts of MLflow, as of version 3.17. Importing this module does not import MLflow."""

from typing import Any


def newest_metrics(data: Any) -> list[Any]:
    """Return the newest `Metric` of each name in a run's data, with its step, which shows what
    MLflow already has; the public API only has the values."""
    return list(data._metric_objs)
