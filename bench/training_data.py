"""What a worker's training data cost: seconds and memory until the first batch, and a step's time,
compared with another build.

python bench/training_data.py OTHER [EXAMPLES …]   # OTHER: a checkout; 50,000 and 200,000 if none
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
ROUNDS, STEPS, BATCH = 3, 12, 16


def measure(folder: Path, model: Path, words: Path) -> dict[str, float]:
    """Read a train split as a stage's worker does, and take steps of a finetuning; `words` has the
    model's tokenizer."""
    import psutil
    import torch

    torch.set_num_threads(1)
    from knife.data.batches import collate, training_rows
    from knife.method.objective import Objective
    from knife.models.load import load_backbone
    from knife.models.tokenizer import load_tokenizer

    objective = Objective(load_backbone(model)).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-4)
    before, started = psutil.Process().memory_full_info().pss, time.monotonic()
    tokens: Any
    if (folder / "train.arrow").exists():
        from knife.data.token_table import TokenTable, sequence_lengths

        load_tokenizer(words, "model")
        tokens = TokenTable.open(folder / "train.arrow")
        lengths = sequence_lengths(tokens, rationale=False)
    else:
        from knife.data.jsonl import read_examples
        from knife.data.tokens import tokenize  # type: ignore[attr-defined]  # of the other build

        examples = read_examples(folder / "train.jsonl")
        tokens, _ = tokenize(examples, load_tokenizer(words, "model"), 512)
        lengths = [len(each.input_ids) for each in tokens]
    batches = training_rows(lengths, BATCH, 0, 0)
    collate(tokens, batches[0], 0, False)
    until = time.monotonic() - started
    seconds = []
    for rows in batches[:STEPS]:
        begun = time.process_time()
        loss = objective(collate(tokens, rows, 0, False), None, None).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - begun)
    memory = psutil.Process().memory_full_info().pss - before
    return {"until": until, "memory": memory, "step": statistics.median(seconds)}


def measured(build: Path, *words: object) -> dict[str, float]:
    """Run `measure` with a build in a process of its own."""
    output = subprocess.run(
        [sys.executable, __file__, "--measure", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(build)},
        cwd=build,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    return found


def main() -> None:
    """Print the figures of both builds, and their ratios."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*map(Path, sys.argv[2:]))))
        return
    from data import write_data
    from workload import model_folder

    from knife.data.jsonl import read_examples
    from knife.data.tokenizing import tokenize
    from knife.models.source import EMBEDDED
    from knife.models.tokenizer import load_tokenizer

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("examples", type=int, nargs="*", default=[50_000, 200_000])
    arguments = parser.parse_args()
    memory: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in arguments.examples:
        with tempfile.TemporaryDirectory() as name:
            lines, tables = Path(name) / "lines", Path(name) / "tables"
            lines.mkdir()
            tables.mkdir()
            write_data(lines, number)
            models = (model_folder("20M", Path(name)), EMBEDDED["tiny-t5"])
            examples = read_examples(lines / "train.jsonl")
            tokens, _ = tokenize(examples, load_tokenizer(models[1], "model"), 512)
            tokens.write(tables / "train.arrow")
            found: dict[str, list[dict[str, float]]] = {"theirs": [], "ours": []}
            for _ in range(ROUNDS):
                found["theirs"].append(measured(arguments.other.resolve(), lines, *models))
                found["ours"].append(measured(HERE, tables, *models))
            print(f"{number:,} examples, medians of {ROUNDS} processes each:")
            for what, unit, by in (
                ("until", "s until the first batch", 1.0),
                ("memory", "MiB (PSS) for data and steps", 2.0**20),
                ("step", "s of processor time a step", 1.0),
            ):
                ours, theirs = (
                    statistics.median(each[what] for each in found[build]) / by
                    for build in ("ours", "theirs")
                )
                print(f"  {ours:.3f} {unit}, theirs {theirs:.3f}: {ours / theirs:.2f}")
                if what == "memory":
                    memory["ours"].append(ours)
                    memory["theirs"].append(theirs)
    first, last = arguments.examples[0], arguments.examples[-1]
    if last > first:
        ours, theirs = (1024 * (most[-1] - most[0]) / (last - first) for most in memory.values())
        print(f"growth an example: {ours:.3f} KiB, theirs {theirs:.2f} KiB: {ours / theirs:.3f}")


if __name__ == "__main__":
    main()
