"""What tracking adds to a step, with MLflow's server up and down, and what is lost.

python bench/tracking.py [rounds]

Each round trains the 20 M model twice, untracked and tracked, in alternating order: first with a
real `mlflow server` on this machine, then after kill -9 of it. A journal is read and sent as in a
run. Then the server is restarted, `catch_up` (knife sync) sends what is left, and every point of
every journal is compared. Processor time is that of the whole training process, including its
tracking threads: on a shared machine it is more reliable than the clock.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from finetune import BATCH, finetune_job
from workload import model_folder, random_tokens

import torch  # isort: skip  (after the threads are set)

from mlflow import MlflowClient

from knife.data.tokens import Tokens
from knife.method.objective import Objective
from knife.models.load import load_backbone
from knife.store.store import Store
from knife.track.catch_up import catch_up
from knife.track.curves import Curves
from knife.track.node import SYSTEM, RunNode
from knife.track.system import system_metrics
from knife.track.tracker import Tracker
from knife.train.context import Context, PlainContext
from knife.train.journal import Position, read_rows
from knife.train.loop import train

STEPS = 40


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def serve(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """Start a server and wait until it answers."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except OSError:
            assert server.poll() is None, "the server has ended"
            time.sleep(0.1)
        else:
            return server


def kill(server: "subprocess.Popen[bytes]") -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def step(
    name: str, model: Path, tokens: list[Tokens], store: Path, uri: str | None, context: Context
) -> tuple[float, float, float]:
    """Return a training's seconds per step, by its own journal and in processor time, and the part
    of that used by the tracker's threads; without a uri it is not tracked."""
    work = store / "student" / name
    work.mkdir(parents=True)
    job, objective = finetune_job(tokens), Objective(load_backbone(model))
    with _tracked(name, store, uri) if uri else nullcontext():
        started = time.process_time()
        train(objective, job, work, context)
        processor = (time.process_time() - started) / STEPS
        tracking = sum(map(_processor_time, threading.enumerate()))
    losses = [row for row in journal(work) if "loss" in row["metrics"]]
    first, last = losses[0], losses[-1]
    seconds = (last["time"] - first["time"]) / (last["step"] - first["step"])
    return seconds, processor, tracking / STEPS


@contextmanager
def _tracked(name: str, folder: Path, uri: str) -> Iterator[None]:
    store = Store(folder)
    own = folder / "runs" / name
    own.mkdir(parents=True)
    with Tracker(uri, store, "bench", TREES) as tracker:
        tracker.show(own, lambda: _tree(own, store, alive=True))
        with system_metrics(own):
            yield
        (own / "ended").touch()


def _tree(folder: Path, store: Store, *, alive: bool) -> RunNode:
    """What MLflow shows of a training."""
    ended = (folder / "ended").is_file() or not alive
    return RunNode(
        key=folder.name,
        name=folder.name,
        began=folder.stat().st_ctime,
        status="FINISHED" if ended else "RUNNING",
        ended=store.root.stat().st_mtime if ended else None,
        params={},
        tags={},
        journals=(("student", folder.name),),
        row_file=f"runs/{folder.name}/{SYSTEM}",
        summary={},
        texts={},
    )


TREES = {"runs": _tree}


def _processor_time(thread: threading.Thread) -> float:
    """Return the processor seconds used by a thread of the tracker; 0 for any other thread."""
    if not thread.name.startswith(("knife-track", "knife-system")):
        return 0.0
    assert thread.ident
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def journal(work: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / "journal.jsonl").read_text().splitlines()]


def compare(store: Path, uri: str) -> tuple[int, int, int]:
    """Return how many points the journals have, how many MLflow lacks, and how many are extra."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("bench").experiment_id
    total = lost = more = 0
    for run in client.search_runs([experiment]):
        found = [
            (name, metric.step, metric.value)
            for name in run.data.metrics
            if not name.startswith("system/")
            for metric in client.get_metric_history(run.info.run_id, name)
        ]
        rows, _ = read_rows(store / "student" / run.info.run_name / "journal.jsonl", Position())
        expected = {
            (name, row["step"], value)
            for row in Curves().rows(rows)
            for name, value in row["metrics"].items()
        }
        total += len(expected)
        lost += len(expected - set(found))
        more += len(found) - len(set(found) & expected)
    return total, lost, more


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else 4
    tokens = random_tokens(STEPS * BATCH, inputs=64, rationale=1, choices=2, choice=3)
    with tempfile.TemporaryDirectory() as name, PlainContext() as context:
        folder, port = Path(name), free_port()
        context.device = torch.device("cpu")
        store, uri, model = (
            folder / "store",
            f"http://127.0.0.1:{port}",
            model_folder("20M", folder),
        )
        server = serve(folder, port)
        step("warm", model, tokens, store, uri, context)
        found = {}
        for state in ("there", "away"):
            if state == "away":
                kill(server)
            # The second one runs under other conditions, so the order alternates.
            ratios: list[tuple[float, float]] = []
            threads: list[float] = []
            for number in range(rounds):
                of = {}
                for target in (None, uri) if number % 2 else (uri, None):
                    name = f"{state}-{number}-{'tracked' if target else 'alone'}"
                    of[target] = step(name, model, tokens, store, target, context)
                tracked, alone = of[uri], of[None]
                ratios.append((tracked[0] / alone[0], tracked[1] / alone[1]))
                threads.append(100 * tracked[2] / tracked[1])
                print(
                    f"server {state}, round {number}: {1000 * alone[0]:.1f} ms a step alone, "
                    f"{1000 * tracked[0]:.1f} ms tracked; of processor time "
                    f"{1000 * alone[1]:.1f} and {1000 * tracked[1]:.1f} ms",
                    flush=True,
                )
            found[state] = ratios, threads
        server = serve(folder, port)
        unsent = catch_up(Store(store), TREES).kept
        total, lost, more = compare(store, uri)
        kill(server)
    for state, (ratios, threads) in found.items():
        for what, values in zip(("step", "processor time"), zip(*ratios, strict=True), strict=True):
            print(
                f"server {state}, {what}, tracked to alone: mean {statistics.fmean(values):.3f}, "
                f"{min(values):.3f} to {max(values):.3f} in {rounds} rounds"
            )
        print(f"server {state}, tracking's threads: {max(threads):.2f} % of processor time at most")
    print(f"of {total} points {lost} are lost and {more} come twice; unsent: {len(unsent)}")


if __name__ == "__main__":
    main()
