"""What reading and planning costs by the number of examples, compared with another build.

python bench/data.py OTHER [EXAMPLES …]   # OTHER: a checkout; 50,000 and 200,000 examples if none
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parents[1]
OTHER_SIZES = {"dev": 1_000, "test": 1_000}
# Three that the tiny T5 can tell apart.
LABELS = ["yes", "no", "fish"]
TEXT = (
    "a man woman child dog two people group young old is are sits stands runs plays eats holds "
    "near in on at the street park beach water red blue green shirt ball bike while looking outside"
)
CONFIG = {
    "name": "bench",
    "model": {"teacher": "tiny-t5", "student": "tiny-t5"},
    "methods": ["finetune", "knife"],
    "seeds": [0],
    "scale": {"launcher": "process"},
}


def write_data(folder: Path, number: int) -> None:
    """Write questions of 24 words with three choices, and rationales of 15 words."""
    draw, words = random.Random(0), TEXT.split()
    for name, size in ({"train": number} | OTHER_SIZES).items():
        with (folder / f"{name}.jsonl").open("w") as file:
            for n in range(size):
                example = {
                    "id": f"{name}-{n}",
                    "question": " ".join(draw.choices(words, k=23)) + f" {n}",
                    "choices": LABELS,
                    "answer": draw.randrange(3),
                    "rationale": " ".join(draw.choices(words, k=15)),
                }
                file.write(json.dumps(example) + "\n")


def command(build: Path, *words: object) -> tuple[float, float]:
    """Run `knife WORDS…` of a build; return its seconds, and the most memory it had (MiB, PSS)."""
    started, most = time.monotonic(), 0.0
    process = psutil.Popen(
        [sys.executable, "-m", "knife", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(build)},
        # Python looks in the current folder first.
        cwd=build,
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None:
        try:
            most = max(most, process.memory_full_info().pss / 2**20)
        except psutil.Error:
            break
        time.sleep(0.1)
    assert process.wait() == 0, words
    return time.monotonic() - started, most


def main() -> None:
    """Print time and memory of each command at each size, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("examples", type=int, nargs="*", default=[50_000, 200_000])
    arguments = parser.parse_args()
    memory: dict[Path, list[float]] = {}
    for number in arguments.examples:
        with tempfile.TemporaryDirectory() as name:
            folder, data = Path(name), Path(name) / "data"
            data.mkdir()
            write_data(data, number)
            (folder / "bench.yaml").write_text(json.dumps(CONFIG))
            planned = ["run", folder / "bench.yaml", f"data.source={data}", "--dry-run"]
            for what, words in (
                ("run --dry-run", planned),
                ("the same again", planned),
                ("data check", ["data", "check", data]),
            ):
                found = {}
                for build in (arguments.other.resolve(), HERE):
                    store = [f"store={folder}/store-{build.name}"] if words is planned else []
                    found[build] = command(build, *words, *store)
                (theirs, before), (ours, now) = found.values()
                if what == "run --dry-run":
                    for build, (_, most) in found.items():
                        memory.setdefault(build, []).append(most)
                print(
                    f"{number:,} examples, {what}: {ours:.1f} s and {now:.0f} MiB; theirs", end=" "
                )
                print(f"{theirs:.1f} s and {before:.0f} MiB; ratio {ours / theirs:.2f}")
    first, *_, last = arguments.examples
    if last > first:
        growth = [1024 * (most[-1] - most[0]) / (last - first) for most in memory.values()]
        theirs, ours = growth
        print(f"growth an example: {ours:.2f} KiB, theirs {theirs:.2f} KiB: {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
