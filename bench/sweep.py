"""What a sweep costs: sharing one teacher, and the overhead of each trial.

python bench/sweep.py share            # 16 students x 1 teacher: `knife tune`, bare, and naive
python bench/sweep.py trivial OTHER    # 200 trials that train nothing: this checkout and another
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from knife.plan.plan import needed
from knife.plan.stage import Stage, together
from knife.store.store import Store
from knife.tune.command import plan_file

ROOT = Path(__file__).resolve().parents[1]
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


def tune(path: Path, checkout: Path = ROOT) -> tuple[float, list[float]]:
    """Time `knife tune` of a checkout: wall seconds, and the driver's memory (MiB) over time."""
    started = time.monotonic()
    process = psutil.Popen(
        [sys.executable, "-m", "knife", "tune", str(path)],
        env=os.environ | {"PYTHONPATH": str(checkout)},
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
    from knife.train.stages import make_stages, settled

    torch.set_num_threads(1)
    plan = plan_file(path, [])
    config = plan.config
    store = Store(config.store)
    publish_data(store, plan.plans[0])
    if part == "teacher":
        stages: list[Stage] = list(plan.shared)
    else:
        slot = int(part.partition(":")[2])
        stages = [each.members[0].student for each in plan.plans[slot::SLOTS]]
    have = {(s.kind, s.key) for s in plan.shared if store.has(s.kind, s.key)}
    if part != "teacher":
        stages = needed(stages, have)
    with PlainContext() as context, settled():
        for group in together(stages):
            make_stages(group, store.root, config.scale, context)


def share(folder: Path) -> None:
    """Compare ours, bare and naive."""
    one = {"align.input.weight": {"grid": WEIGHTS}}
    many = {"teacher.seed": {"grid": list(range(STUDENTS))}}
    ours, _ = tune(sweep_file(folder / "ours", one))
    alone = bare(sweep_file(folder / "bare", one))
    naive, _ = tune(sweep_file(folder / "naive", many))
    print(f"{STUDENTS} students, {SLOTS} slots: ours {ours:.0f} s, bare {alone:.0f} s, ", end="")
    print(f"a teacher a trial {naive:.0f} s")
    print(f"ours to bare: {ours / alone:.2f}   naive to ours: {naive / ours:.2f}")


def trivial(folder: Path, other: Path) -> None:
    """Time trials that find their student in the store, by this checkout and another."""
    trials = 200
    seconds: dict[Path, float] = {}
    for checkout in (other, ROOT):
        place = folder / str(len(seconds))
        # finetune aligns nothing, so its student is the same for every weight.
        only = {"set": BASE | {"store": str(place / "store"), "methods": ["finetune"]}}
        one = {"align.input.weight": {"grid": [0]}}
        tune(sweep_file(place, one, name="first", **only), checkout)
        many = {"align.input.weight": {"grid": list(range(trials))}}
        seconds[checkout], memory = tune(sweep_file(place, many, **only), checkout)
    ours, theirs = seconds[ROOT], seconds[other]
    print(f"{trials} trials that train nothing: ours {ours:.0f} s, theirs {theirs:.0f} s, ", end="")
    print(f"ours to theirs {ours / theirs:.2f}")
    # In the last seconds matplotlib and optuna are loaded and the plots drawn.
    third = len(memory) // 3
    print(f"driver's memory: {memory[third]:.0f} MiB after a third of the time, ", end="")
    print(f"{memory[2 * third]:.0f} MiB after two thirds, {memory[-1]:.0f} MiB at the end")


def main(words: Sequence[str]) -> None:
    """Run one part."""
    if words[0] == "bare":
        make_bare(Path(words[1]), words[2])
        return
    with tempfile.TemporaryDirectory() as folder:
        if words[0] == "share":
            share(Path(folder))
        else:
            trivial(Path(folder), Path(words[1]).resolve())


if __name__ == "__main__":
    main(sys.argv[1:] or ["share"])
