"""What a sweep costs: sharing one teacher, and the overhead of each trial.

python bench/sweep.py share      # 16 students x 1 teacher: `knife tune`, bare processes, and naive
python bench/sweep.py trivial    # 200 trials that train nothing: ours, and Ray Tune's own time
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import yaml

from knife.launch.session import in_thread, session
from knife.plan.plan import needed
from knife.plan.stage import Stage
from knife.store.store import Store
from knife.tune.command import plan_file

SLOTS = 2
STUDENTS = 16
WEIGHTS = [5.0 + number for number in range(STUDENTS)]
# Teacher and students train for the same number of epochs.
BASE = {
    "methods": ["knife"],
    "data.world": {"creatures": 48, "train": 1000, "dev": 150, "test": 100, "cue": 0.25},
    "teacher.epochs": 10,
    "student.epochs": 10,
    "student.evaluate_epochs": 5,
}


def sweep_file(folder: Path, space: dict[str, Any], **changes: Any) -> Path:
    """Write a sweep's file with a separate store."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"name": "bench", "base": "demo", "search": "grid", "final": None, "space": space}
    values["set"] = BASE | {"store": str(folder / "store")}
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def tune(path: Path) -> tuple[float, list[float]]:
    """Time `knife tune`: wall seconds, and the driver's memory (MiB) over time."""
    started = time.monotonic()
    process = psutil.Popen(
        [sys.executable, "-m", "knife", "tune", str(path)],
        stdout=subprocess.DEVNULL,
        stderr=path.with_suffix(".log").open("w"),
    )
    memory: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(1):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                memory.append(process.memory_info().rss / 2**20)

    threading.Thread(target=sample, daemon=True).start()
    status = process.wait()
    ended.set()
    assert status == 0, path.with_suffix(".log").read_text()
    return time.monotonic() - started, memory


def bare(path: Path) -> float:
    """Time a process for the teacher, then one per slot that trains students in sequence."""
    started = time.monotonic()
    for parts in [["teacher"], [f"students:{slot}" for slot in range(SLOTS)]]:
        command = [sys.executable, __file__, "bare", str(path)]
        processes = [
            subprocess.Popen([*command, part], stderr=subprocess.DEVNULL) for part in parts
        ]
        assert [process.wait() for process in processes] == [0] * len(parts)
    return time.monotonic() - started


def make_bare(path: Path, part: str) -> None:
    """Run one process of `bare`: stages in sequence, without Ray or MLflow."""
    import torch

    from knife.pipeline.run import publish_data
    from knife.train.context import PlainContext
    from knife.train.stages import run_stages

    torch.set_num_threads(1)
    plan = plan_file(path, [])
    config = plan.config
    store = Store(config.store)
    for key in plan.plans[0].data:
        publish_data(store, key, plan.plans[0])
    if part == "teacher":
        stages: list[Stage] = list(plan.shared)
    else:
        slot = int(part.partition(":")[2])
        stages = [each.members[0].student for each in plan.plans[slot::SLOTS]]
    have = {(s.kind, s.key) for s in plan.shared if store.has(s.kind, s.key)}
    with PlainContext() as context:
        run_stages(needed(stages, have) if part != "teacher" else stages, store.root,
                   config.scale, context)  # fmt: skip


def overheads(folder: Path) -> list[float]:
    """Return for each trial but its worker's first the seconds that were not spent on training."""
    workers: dict[int, list[tuple[float, float]]] = {}
    store = folder / "store"
    for path in (store / "sweeps" / "bench" / "search").glob("*/result.json"):
        last = json.loads(path.read_text().splitlines()[-1])
        (key,) = last["students"].values()
        trained = json.loads((store / "student" / key / "trained.json").read_text())
        workers.setdefault(last["pid"], []).append((last["timestamp"], trained["seconds"]))
    found = []
    for ends in workers.values():
        for (before, _), (end, seconds) in pairwise(sorted(ends)):
            found.append(end - before - seconds)
    return found


def share(folder: Path) -> None:
    """Compare ours, bare and naive."""
    one = {"align.input.weight": {"grid": WEIGHTS}}
    many = {"teacher.seed": {"grid": list(range(STUDENTS))}}
    ours, _ = tune(sweep_file(folder / "ours", one))
    alone = bare(sweep_file(folder / "bare", one))
    naive, _ = tune(sweep_file(folder / "naive", many))
    seconds = overheads(folder / "ours")
    print(f"{STUDENTS} students, {SLOTS} slots: ours {ours:.0f} s, bare {alone:.0f} s, ", end="")
    print(f"a teacher a trial {naive:.0f} s")
    print(f"ours to bare: {ours / alone:.2f}   naive to ours: {naive / ours:.2f}")
    mean = sum(seconds) / len(seconds)
    print(f"a trial after its worker's first, training aside: mean {mean:.1f} s, ", end="")
    print(f"longest {max(seconds):.0f} s (to the second)")


def trivial(folder: Path) -> None:
    """Time trials that find their student in the store, and as many of a function that reports."""
    trials = 200
    # finetune aligns nothing, so its student is the same for every weight.
    only = {"set": BASE | {"store": str(folder / "trivial" / "store"), "methods": ["finetune"]}}
    one = {"align.input.weight": {"grid": [0]}}
    tune(sweep_file(folder / "trivial", one, name="first", **only))
    many = {"align.input.weight": {"grid": list(range(trials))}}
    path = sweep_file(folder / "trivial", many, **only)
    ours, memory = tune(path)
    plain = plain_tune(folder / "plain", trials)
    print(f"{trials} trials that train nothing: ours {ours:.0f} s, Ray Tune alone {plain:.0f} s, ")
    print(f"difference {ours - plain:.0f} s")
    # In the last seconds matplotlib and optuna are loaded and the plots drawn.
    third = len(memory) // 3
    print(f"driver's memory: {memory[third]:.0f} MiB after a third of the time, ", end="")
    print(f"{memory[2 * third]:.0f} MiB after two thirds, {memory[-1]:.0f} MiB at the end")


def plain_tune(folder: Path, trials: int) -> float:
    """Time Ray Tune, with Ray's start, on a function that reports as often as ours."""
    started = time.monotonic()
    with session(0):
        from ray import tune as ray_tune

        tuner = ray_tune.Tuner(
            ray_tune.with_resources(report, {"CPU": 1}),
            param_space={"number": ray_tune.grid_search(list(range(trials)))},
            tune_config=ray_tune.TuneConfig(max_concurrent_trials=SLOTS, reuse_actors=True),
            run_config=ray_tune.RunConfig(name="plain", storage_path=str(folder), verbose=0),
        )
        in_thread(tuner.fit).result()
    return time.monotonic() - started


def report(_: dict[str, Any]) -> None:
    """Report as often as a trial of `trivial`."""
    from ray import tune as ray_tune

    for epoch in (5, 10):
        ray_tune.report({"epoch": epoch, "score": 0.5})


def main(words: Sequence[str]) -> None:
    """Run one part."""
    if words[0] == "bare":
        make_bare(Path(words[1]), words[2])
        return
    with tempfile.TemporaryDirectory() as folder:
        {"share": share, "trivial": trivial}[words[0]](Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:] or ["share"])
