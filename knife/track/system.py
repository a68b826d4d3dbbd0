"""The load of the driver's machine as MLflow system metrics: CPU, memory, network, GPUs."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from knife.core import strict_json
from knife.core.background import background
from knife.track.node import SYSTEM
from knife.train.journal import Row

log = logging.getLogger("knife.track")

SECONDS = 10.0


@contextmanager
def system_metrics(folder: Path, seconds: float = SECONDS) -> Iterator[None]:
    """Record system metrics in the folder of a run or a sweep every `seconds` seconds, from a
    thread, within the context.

    Names and units are MLflow's; GPUs need nvidia-ml-py. Workers on other hosts are not measured:
    only the driver sends to MLflow.
    """
    with background("knife-system", partial(_watch, folder / SYSTEM, seconds)):
        yield


def _watch(path: Path, seconds: float, stop: threading.Event) -> None:
    monitors = _monitors()
    while not stop.wait(seconds):
        metrics: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            metrics |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        now = time.time()
        # The clock gives steps that increase across all starts of the run.
        row: Row = {"step": int(now), "time": now, "metrics": {}}
        row["metrics"] = {f"system/{name}": float(value) for name, value in metrics.items()}
        try:
            with path.open("a") as file:
                file.write(strict_json.dumps(row) + "\n")
        except OSError as error:
            # A full disk ends the work by itself.
            log.debug("%s: %s", path, error)


def _monitors() -> list[Any]:
    """Return the monitors that work here: a machine may lack a GPU, a container a network."""
    found = []
    for kind in (CPUMonitor, NetworkMonitor, GPUMonitor):
        try:
            found.append(kind())
        except Exception as error:
            log.debug("no %s: %s", kind.__name__, error)
    return found
