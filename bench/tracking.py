"""A step of training while MLflow's server is away, to one while it is there; what is lost.

python bench/tracking.py [rounds]

Each round trains the 20 M model twice, in turn: once with a real `mlflow server` on this machine,
once after kill -9 of it. A journal is followed and sent as in a run. Then the server is started
again, `resend` (knife sync) sends what is left, and every point of every journal is compared.
Processor time is that of the whole training process, its tracking threads included: on a machine
that others use too it says more than the clock.
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
from pathlib import Path
from typing import Any

from finetune import BATCH, finetune_job
from workload import model_folder, random_tokens

import torch  # isort: skip  (after the threads are set)

from mlflow import MlflowClient

from knife.data.tokens import Tokens
from knife.method.backbone import load_backbone
from knife.method.objective import Objective
from knife.track.follow import Follower
from knife.track.resend import resend
from knife.track.tracker import Tracker
from knife.train.context import Context, PlainContext
from knife.train.loop import train

STEPS = 40


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def serve(folder: Path, port: int) -> "subprocess.Popen[bytes]":
    """A server that answers."""
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
    name: str, model: Path, tokens: list[Tokens], store: Path, uri: str, context: Context
) -> tuple[float, float, float]:
    """Seconds a step of a tracked training by its own journal, of processor time, and of that what
    the threads of the tracker have used."""
    work = store / "student" / name
    work.mkdir(parents=True)
    job = finetune_job(tokens)
    with Tracker(uri, store, "bench") as tracker:
        run = tracker.open_run(name, name, {}, {})
        with Follower(store) as follower:
            follower.follow("student", name, run)
            objective, started = Objective(load_backbone(model)), time.process_time()
            train(objective, job, work, context)
            processor = (time.process_time() - started) / STEPS
            tracking = sum(map(_processor_time, threading.enumerate()))
        run.finish("FINISHED")
    losses = [row for row in journal(work) if "loss" in row["metrics"]]
    first, last = losses[0], losses[-1]
    seconds = (last["time"] - first["time"]) / (last["step"] - first["step"])
    return seconds, processor, tracking / STEPS


def _processor_time(thread: threading.Thread) -> float:
    """What a thread of the tracker has used, in seconds; 0 for any other thread."""
    if not thread.name.startswith(("knife-track", "knife-follow")):
        return 0.0
    assert thread.ident
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def journal(work: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work / "journal.jsonl").read_text().splitlines()]


def compare(store: Path, uri: str) -> tuple[int, int, int]:
    """Points in the journals, of those what MLflow lacks, and what it has beyond them."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("bench").experiment_id
    total = lost = more = 0
    for run in client.search_runs([experiment]):
        found = [
            (name, metric.step, metric.value)
            for name in run.data.metrics
            for metric in client.get_metric_history(run.info.run_id, name)
        ]
        rows = journal(store / "student" / run.info.run_name)
        told = {
            (name, row["step"], value)
            for row in rows
            for name, value in (row["metrics"] | {"epoch": row["epoch"]}).items()
        }
        total += len(told)
        lost += len(told - set(found))
        more += len(found) - len(set(found) & told)
    return total, lost, more


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else 6
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
        ratios: list[tuple[float, float]] = []
        tracking: list[float] = []
        step("warm", model, tokens, store, uri, context)
        for number in range(rounds):
            # Now the one first and now the other: a machine drifts.
            seconds = {}
            for way in ("there", "away") if number % 2 else ("away", "there"):
                if way == "away":
                    kill(server)
                seconds[way] = step(f"{way}-{number}", model, tokens, store, uri, context)
                if way == "away":
                    server = serve(folder, port)
            there, away = seconds["there"], seconds["away"]
            ratios.append((away[0] / there[0], away[1] / there[1]))
            tracking += [100 * there[2] / there[1], 100 * away[2] / away[1]]
            print(
                f"round {number}: {1000 * there[0]:.1f} ms a step with the server, "
                f"{1000 * away[0]:.1f} ms without, ratio {ratios[-1][0]:.3f}, "
                f"of processor time {ratios[-1][1]:.3f}",
                flush=True,
            )
        unsent = resend(store).kept
        total, lost, more = compare(store, uri)
        kill(server)
    for name, values in zip(("a step", "processor time"), zip(*ratios, strict=True), strict=True):
        print(
            f"{name}, without to with the server: median {statistics.median(values):.3f}, "
            f"{min(values):.3f} to {max(values):.3f} in {rounds} rounds"
        )
    print(f"tracking's threads: at most {max(tracking):.2f} % of the processor time")
    print(f"of {total} points {lost} are lost and {more} come twice; unsent: {len(unsent)}")


if __name__ == "__main__":
    main()
