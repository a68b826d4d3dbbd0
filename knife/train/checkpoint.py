"""Checkpoints of a training: DeepSpeed's shards, and beside them where the training was.

checkpoints/step-00000500/            DeepSpeed's files, one set a rank
checkpoints/step-00000500/place.json  written last: a checkpoint without it does not count
best-00000480/                        the best model so far, in transformers' format
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from knife.train.context import Context, share, wait

_PLACE = "place.json"


@dataclass
class Place:
    """Where a training stands: everything that DeepSpeed's own state lacks.

    Attributes:
        step: optimizer steps done.
        epoch: epoch under way, from 0, and `batch` the batches of it that are done.
        best: accuracy and loss on dev of the best model, and the step it was saved at.
        worse: evaluations since then.
        seconds: time spent training, over all tries.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_accuracy: float = -1.0
    best_loss: float = float("inf")
    best_step: int = -1
    worse: int = 0
    seconds: float = 0.0

    def best_folder(self, work: Path) -> Path:
        """The folder of the best model."""
        return work / f"best-{self.best_step:08d}"


def save_checkpoint(engine: Any, work: Path, place: Place, context: Context) -> None:
    """Save a checkpoint that `load_checkpoint` finds, then drop what only older ones needed."""
    folder = work / "checkpoints"
    tag = f"step-{place.step:08d}"
    if context.rank == 0:
        # What a try of another shape may have begun here.
        shutil.rmtree(folder / tag, ignore_errors=True)
    wait()
    engine.save_checkpoint(str(folder), tag=tag, save_latest=False, exclude_frozen_parameters=True)
    wait()
    if context.rank == 0:
        # On disk before the place says so: a machine may go down as well as a process.
        for path in (*(folder / tag).iterdir(), *place.best_folder(work).glob("*")):
            _sync(path)
        values = asdict(place) | {
            "world_size": context.world_size,
            "zero": engine.zero_optimization_stage(),
        }
        write_json(folder / tag / _PLACE, values)
        for old in folder.iterdir():
            if old.name < tag:
                shutil.rmtree(old)
        for model in work.glob("best-*"):
            if model != place.best_folder(work):
                shutil.rmtree(model)
    wait()


def load_checkpoint(engine: Any, work: Path, context: Context) -> Place:
    """Take up the newest whole checkpoint; a new `Place` where there is none.

    One that another number of workers or another ZeRO stage wrote is not used: DeepSpeed's shards
    do not fit, and the training starts again.
    """
    folder = work / "checkpoints"
    found = None
    if context.rank == 0 and folder.is_dir():
        for path in sorted(folder.glob(f"*/{_PLACE}"), reverse=True):
            values = json.loads(path.read_text())
            shape = (values.pop("world_size"), values.pop("zero"))
            if shape == (context.world_size, engine.zero_optimization_stage()):
                found = (path.parent.name, values)
                break
        if found is None:
            shutil.rmtree(folder)
    found = share(found)
    if found is None:
        return Place()
    tag, values = found
    loaded, _ = engine.load_checkpoint(str(folder), tag=tag)
    assert loaded is not None, f"DeepSpeed did not load its own checkpoint {folder / tag}"
    return Place(**values)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file that is there whole or not at all."""
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w") as file:
        json.dump(values, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
