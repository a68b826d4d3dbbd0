"""Cost of a knife step, from stored states and with an online teacher, relative to finetune.

python bench/steps.py [tiny] [20M] [60M]
"""

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from workload import model_folder, random_tokens, time_in_turn

import torch  # isort: skip  (after the threads are set)

from knife.config.run import Align
from knife.data.batches import Rows, collate, training_rows
from knife.method.objective import Alignment, Objective
from knife.method.states import (
    OnlineTeacher,
    StoredStates,
    Summary,
    example_states,
    write_shard,
)
from knife.method.states_parts import StatesPart
from knife.models.load import load_backbone

BATCH = 8
EXAMPLES = 256


def store_states(teacher: Any, tokens: Any, layers: list[int], folder: Path) -> StoredStates:
    """The teacher's states of all examples, as the states stages write them."""
    found = []
    with torch.no_grad():
        for start in range(0, len(tokens), 64):
            rows = list(range(start, min(start + 64, len(tokens))))
            batch = collate(tokens, Rows(rows, [1.0] * len(rows)), 0, True)
            found += example_states(teacher(batch, layers), layers, batch)
    folders: dict[StatesPart, Path] = {layer: folder / str(layer) for layer in layers}
    for layer, path in folders.items():
        states = [each[layer] for each in found]
        rows = list(range(len(found)))
        moments = write_shard(path / "shard-00000.safetensors", rows, states, "fp32")
        Summary(teacher.width, "fp32", moments.variance(), True).write(path)
    return StoredStates(folders)


def stepper(folder: Path, tokens: Any, alignment: Any, teacher: Any) -> Callable[[], None]:
    """Return a function that takes one training step at a time, batch after batch."""
    objective = Objective(load_backbone(folder), alignment).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4)
    batches = training_rows([64] * len(tokens), BATCH, 0, 0) * 100
    state = {"step": 0}

    def step() -> None:
        rows = batches[state["step"]]
        state["step"] += 1
        batch = collate(tokens, rows, 0, False)
        target = teacher(rows, batch) if teacher else None
        optimizer.zero_grad()
        objective(batch, target).loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()

    return step


def main() -> None:
    sizes = sys.argv[1:] or ["tiny", "20M", "60M"]
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            _measure(size, Path(name))


def _measure(size: str, parent: Path) -> None:
    folder = model_folder(size, parent)
    tokens = random_tokens(EXAMPLES, inputs=64, rationale=64, choices=2, choice=3)
    teacher = load_backbone(folder).eval()
    depth = teacher.depth
    ways = {"finetune": stepper(folder, tokens, None, None)}
    for name, layers in (("last layer", [depth]), ("all layers", list(range(1, depth + 1)))):
        stored = store_states(teacher, tokens, layers, parent / name.replace(" ", "-"))
        pairs = tuple((layer, layer) for layer in layers)
        width = teacher.width
        variance = {layer: stored.parts[layer].summary.variance for layer in layers}
        alignment = Alignment(Align(), pairs, width, width, variance)
        from_store = partial(_stored, stored)
        ways[f"knife, stored states, {name}"] = stepper(folder, tokens, alignment, from_store)
        online = partial(_online, OnlineTeacher(teacher, layers), tokens)
        ways[f"knife, online teacher, {name}"] = stepper(folder, tokens, alignment, online)
    medians = time_in_turn(ways, 40 if size == "tiny" else 8)
    for name, seconds in medians.items():
        ratio = seconds / medians["finetune"]
        print(f"{size:5} {name:34} {1000 * seconds:8.1f} ms a step  {ratio:.3f} x finetune")


def _stored(states: StoredStates, _: Rows, batch: Any) -> Any:
    return states.batch(batch)


def _online(teacher: OnlineTeacher, tokens: Any, rows: Rows, _: Any) -> Any:
    return teacher.batch(collate(tokens, rows, 0, True))


if __name__ == "__main__":
    main()
