"""What the driver's machine is at, as MLflow's system metrics: CPU, memory, network, GPUs."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from knife.track.run import TrackedRun
from knife.train.journal import Row

log = logging.getLogger("knife.track")

SECONDS = 10.0


@contextmanager
def system_metrics(run: TrackedRun, seconds: float = SECONDS) -> Iterator[None]:
    """Record them with a run every so many seconds, from a thread, while the work inside goes on.

    MLflow's names and units; GPUs where nvidia-ml-py is installed. Workers on other hosts are not
    seen: MLflow is told of by the driver alone.
    """
    stop = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(run, seconds, stop), name="knife-system", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _watch(run: TrackedRun, seconds: float, stop: threading.Event) -> None:
    monitors = _monitors()
    while not stop.wait(seconds):
        metrics: dict[str, float] = {}
        for monitor in monitors:
            monitor.collect_metrics()
            metrics |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        now = time.time()
        # Steps that grow over every start of the run: the clock's.
        row: Row = {"step": int(now), "time": now, "metrics": {}}
        row["metrics"] = {f"system/{name}": float(value) for name, value in metrics.items()}
        run.log_row(row)


def _monitors() -> list[Any]:
    """Those that work here: a machine may have no GPU, and a container no network."""
    found = []
    for kind in (CPUMonitor, NetworkMonitor, GPUMonitor):
        try:
            found.append(kind())
        except Exception as error:
            log.debug("no %s: %s", kind.__name__, error)
    return found
