"""How long whole runs take, compared with another build, alternately.

python bench/runs.py OTHER     # OTHER: a checkout of the build to compare with
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
ROUNDS = 3
RUNS = {
    "demo": ["demo"],
    "6 finetune and 6 knife students": [
        "demo",
        "methods=[finetune, knife]",
        "seeds=[0, 1, 2, 3, 4, 5]",
    ],
}


def seconds(build: Path, words: list[str]) -> float:
    """Return how long a build takes for a run from nothing."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as store:
        subprocess.run(
            [sys.executable, "-m", "knife", "run", *words, f"store={store}", "--quiet"],
            cwd=store,
            env=os.environ | {"PYTHONPATH": str(build)},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.monotonic() - started


def main() -> None:
    """Print a line for each run: this build, the other one, and the ratio of their medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    other = parser.parse_args().other.resolve()
    for name, words in RUNS.items():
        found: dict[Path, list[float]] = {other: [], HERE: []}
        for build in [other, HERE] * ROUNDS:
            found[build].append(seconds(build, words))
            print(f"{name}: {found[build][-1]:.0f} s by {build}", file=sys.stderr)
        own, others = (statistics.median(found[build]) for build in (HERE, other))
        rounds = ", ".join(f"{a / b:.2f}" for a, b in zip(found[HERE], found[other], strict=True))
        print(f"{name}: {own:.0f} s, {others:.0f} s: ratio {own / others:.2f} ({rounds})")


if __name__ == "__main__":
    main()
