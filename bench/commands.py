"""How long commands take, as a user waits for them, compared with another build.

python bench/commands.py OTHER     # OTHER: a checkout of the build to compare with
Run `knife run demo` in the same folder first, so that its report and a second run find everything.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
COMMANDS = (["--help"], ["report", "demo"], ["run", "demo", "--dry-run"], ["run", "demo"])
ROUNDS = 5


def seconds(build: Path, words: list[str]) -> float:
    """Time one start of a build's command, with this Python and its libraries, in seconds."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "knife", *words],
        env=os.environ | {"PYTHONPATH": str(build)},
        capture_output=True,
        check=True,
    )
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("other", type=Path)
    other = parser.parse_args().other.resolve()
    for words in COMMANDS:
        found: dict[Path, list[float]] = {HERE: [], other: []}
        for build in [HERE, other] * ROUNDS:
            found[build].append(seconds(build, words))
        # The first start of each reads the files from disk.
        own, others = (statistics.median(found[build][1:]) for build in (HERE, other))
        print(f"knife {' '.join(words):20} {own:6.2f} s, {others:6.2f} s: ratio {own / others:.2f}")


if __name__ == "__main__":
    main()
