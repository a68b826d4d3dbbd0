"""Checkpoints of a training: DeepSpeed's shards, and beside them the training's state.

checkpoints/step-00000500/            DeepSpeed's files, one set per rank
checkpoints/step-00000500/place.json  written last: a checkpoint without it does not count
best-00000480/                        the best model so far, in transformers' format

The two newest are kept: if the newest is damaged, the one before it is used.
"""

import json
import shutil
import threading
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from knife.core.atomic import sync, write_json
from knife.store.checksums import digest
from knife.train.context import Context, barrier, gather
from knife.train.conversion import CheckpointLayout, convert, fit, weights_only
from knife.train.mirror import KEPT, Mirror

_STATE = "place.json"


@dataclass
class TrainingState:
    """The state of a training: everything that DeepSpeed's own state lacks.

    Attributes:
        step: optimizer steps done.
        epoch, batch: epoch under way, from 0, and the number of its batches done.
        best_accuracy, best_loss, best_step: of the best model on dev, and the step it was saved at.
        worse: evaluations since then.
        seconds: time spent training, over all tries.
        resumed: the steps that later tries resumed from.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_accuracy: float = -1.0
    best_loss: float | None = None
    best_step: int = -1
    worse: int = 0
    seconds: float = 0.0
    resumed: list[int] = field(default_factory=list)

    def best_folder(self, work: Path) -> Path:
        """Return the folder of the best model."""
        return work / f"best-{self.best_step:08d}"


@dataclass(frozen=True)
class Found:
    """What a training resumes from.

    Attributes:
        state: its state; a new one if there is no checkpoint.
        folder: DeepSpeed's files, or None.
        converted: whether they are in DeepSpeed's universal format, for which an engine must be
            configured.
        notes: what was skipped or converted, and why; a line each.
    """

    state: TrainingState = field(default_factory=TrainingState)
    folder: Path | None = None
    converted: bool = False
    notes: tuple[str, ...] = ()

    def load(self, engine: Any) -> TrainingState:
        """Load this state into an engine; all ranks must call it."""
        if self.folder is None:
            return self.state
        # DeepSpeed reads its universal files with `weights_only=False`.
        with weights_only():
            loaded, _ = engine.load_checkpoint(
                str(self.folder.parent),
                tag=self.folder.name,
                custom_load_fn=None if engine.zero_optimization_stage() == 3 else _load_trained,
            )
        if loaded is None:
            raise RuntimeError(f"DeepSpeed did not load its own checkpoint {self.folder}")
        barrier()
        if self.converted:
            shutil.rmtree(self.folder.parent, ignore_errors=True)
        return self.state


class Checkpoints:
    """The checkpoints of one training, in its work folder; all ranks must call every method.

    A checkpoint counts once it is on disk with its checksums and, if the store is a bucket, in the
    bucket. Syncing, checksums and copying run beside the training, in a thread of rank 0 or, with
    a bucket, of the first rank on each host.
    """

    def __init__(self, work: Path, context: Context, mirror: Mirror | None = None) -> None:
        self.work = work
        self.last_step: int | None = None
        self._context = context
        self._mirror = mirror
        self._leader = mirror.leader if mirror else 0
        self._leads = context.rank == self._leader
        self._folder = work / "checkpoints"
        self._finisher: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until nothing writes any more: another try may follow in the same process."""
        if self._finisher:
            self._finisher.join()

    def find(self, zero_stage: int, precision: str) -> Found:
        """Find the newest complete checkpoint that can be used, converted if necessary."""
        layout = CheckpointLayout(self._context.world_size, zero_stage, precision)
        passed_over = self._mirror.restore() if self._mirror else []
        found: Found = gather(self._find(layout) if self._leads else None)[self._leader]
        if found.folder:
            self.last_step = found.state.step
        return replace(found, notes=(*passed_over, *found.notes))

    def _find(self, layout: CheckpointLayout) -> Found:
        """Find the newest usable checkpoint in the work folder; remove newer ones."""
        notes: list[str] = []
        for path in self._newest_first():
            folder, name = path.parent, path.parent.name
            try:
                values = json.loads(path.read_text())
                state, written = (
                    TrainingState(**values["place"]),
                    CheckpointLayout(**values["shape"]),
                )
                files = values["files"].items()
            except (ValueError, TypeError, KeyError):
                state, written, files = TrainingState(), layout, {_STATE: ""}.items()
            damaged = [file for file, of in files if _digest(self.work / file) != of]
            if damaged:
                notes.append(f"checkpoint {name} is damaged ({', '.join(damaged)}): skipped")
            elif written == layout or fit(written, layout):
                return Found(state, folder, notes=tuple(notes))
            elif universal := convert(folder, self.work / "converted" / name, written, layout):
                notes.append(f"checkpoint {name} of {written} was converted for {layout}")
                return Found(state, universal, converted=True, notes=tuple(notes))
            else:
                notes.append(f"checkpoint {name} of {written} cannot be used for {layout}: skipped")
            shutil.rmtree(folder)
        if notes:
            notes.append("no usable checkpoint is left: the training starts from the beginning")
        shutil.rmtree(self._folder, ignore_errors=True)
        return Found(notes=tuple(notes))

    def _newest_first(self) -> list[Path]:
        return sorted(self._folder.glob(f"*/{_STATE}"), reverse=True)

    def save(self, engine: Any, state: TrainingState) -> None:
        """Save a checkpoint; it counts soon after.

        Raises:
            OSError, RuntimeError: the disk is full or fails; older checkpoints are kept.
        """
        self.settle()
        folder = self._folder / f"step-{state.step:08d}"
        if self._leads:
            # A try with another layout may have left files here.
            shutil.rmtree(folder, ignore_errors=True)
        barrier()
        try:
            engine.save_checkpoint(
                str(self._folder),
                tag=folder.name,
                save_latest=False,
                # They are as in the model's own files. DeepSpeed needs those of stage 3.
                exclude_frozen_parameters=engine.zero_optimization_stage() < 3,
            )
        except Exception:
            # The disk may be full because of it.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        barrier()
        self.last_step = state.step
        if self._leads:
            layout = CheckpointLayout(
                self._context.world_size,
                engine.zero_optimization_stage(),
                "bf16" if engine.bfloat16_enabled() else "fp32",
            )
            values = {"place": asdict(state), "shape": asdict(layout)}
            best = state.best_folder(self.work)
            self._finisher = threading.Thread(
                target=self._finish, args=(folder, best, values), name="knife-checkpoint"
            )
            self._finisher.start()

    def settle(self) -> None:
        """Wait until the last saved checkpoint counts.

        Raises:
            OSError: it could not be finished.
        """
        if self._mirror:
            # Uploading a large one takes time; that does not mean that the worker hangs.
            self._context.pause_heartbeat()
        if self._finisher:
            self._finisher.join()
            self._finisher = None
        failure, self._failure = self._failure, None
        failures = [f for f in gather(failure) if f]
        if failures:
            raise failures[0]

    def _finish(self, folder: Path, best: Path, values: dict[str, Any]) -> None:
        try:
            paths = sorted(p for f in (folder, best) for p in f.rglob("*") if p.is_file())
            files = {}
            for path in paths:
                # On disk before place.json lists it: the machine may crash, not only the process.
                sync(path)
                files[path.relative_to(self.work).as_posix()] = digest(path)
            values["files"] = files
            if self._mirror:
                values["leaders"] = self._mirror.leaders
            write_json(folder / _STATE, values)
            if self._mirror:
                state = values["place"]
                self._mirror.upload(state["step"], values, state["best_step"])
            self._drop_old()
        except BaseException as error:
            # A checkpoint that is complete here is usable on this host even if the upload failed.
            if not (folder / _STATE).is_file():
                shutil.rmtree(folder, ignore_errors=True)
            self._failure = error

    def _drop_old(self) -> None:
        """Keep the newest checkpoints that count, and the best models they refer to."""
        kept = self._newest_first()[:KEPT]
        for old in self._folder.iterdir():
            if old.name < kept[-1].parent.name:
                shutil.rmtree(old)
        known = {TrainingState(**json.loads(p.read_text())["place"]).best_step for p in kept}
        for model in self.work.glob("best-*"):
            if int(model.name.removeprefix("best-")) < min(known):
                shutil.rmtree(model)


def _load_trained(src: dict[str, Tensor], dst: nn.Module) -> None:
    """Load a module's state, which may lack frozen parameters and nothing else."""
    found = dst.load_state_dict(src, strict=False)
    trained = {name for name, parameter in dst.named_parameters() if parameter.requires_grad}
    if wrong := found.unexpected_keys or trained & set(found.missing_keys):
        raise RuntimeError(f"a checkpoint is of another model: {sorted(wrong)}")


def _digest(path: Path) -> str:
    try:
        return digest(path)
    except OSError:
        return "cannot be read"
