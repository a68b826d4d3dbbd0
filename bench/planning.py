"""The processor time to plan a run of many methods, compared with another build.

python bench/planning.py OTHER         # OTHER: a checkout of the build to compare with
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# 10,000 training examples, seven methods, five seeds; imports are not counted.
PROGRAM = """
import sys, time
try:
    from knife.config.run import Data, RunConfig
    from knife.plan.plan import plan_run
except ImportError:
    # A build from before these were packages.
    from knife.config import Data, RunConfig
    from knife.plan import plan_run

config = RunConfig.model_validate({
    "name": "planning",
    "data": {"source": sys.argv[1]},
    "model": {"teacher": "tiny-t5", "student": "tiny-t5"},
    "methods": ["finetune", "rationale_input", "knife", "explain_then_answer",
                "answer_then_explain", "step_by_step", "teacher_init"],
    "seeds": [0, 1, 2, 3, 4],
    "store": sys.argv[2],
})
# What the first plan of a process imports.
plan_run(config.model_copy(update={"data": Data(source="creatures")}))
started = time.process_time()
plan = plan_run(config)
print(time.process_time() - started, plan.key)
"""
HERE = Path(__file__).resolve().parents[1]
SIZES = {"train": 10_000, "dev": 500, "test": 1_000}
TEXT = "who what a bird fish small old lives flies eats by the water sun yes no it can not is"


def write_data(folder: Path) -> None:
    """Write random yes/no questions with rationales of 20 to 40 words."""
    draw, words = random.Random(0), TEXT.split()
    for name, size in SIZES.items():
        with (folder / f"{name}.jsonl").open("w") as file:
            for number in range(size):
                example = {
                    "id": f"{name}-{number}",
                    "question": " ".join(draw.choices(words, k=20)) + f" {number}?",
                    "choices": ["yes", "no"],
                    "answer": draw.randrange(2),
                    "rationale": " ".join(draw.choices(words, k=draw.randint(20, 40))),
                }
                file.write(json.dumps(example) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("other", type=Path)
    other = parser.parse_args().other.resolve()
    seconds: dict[Path, list[float]] = {other: [], HERE: []}
    keys = {}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as store:
        write_data(Path(folder))
        for _ in range(3):
            for build, found in seconds.items():
                printed = subprocess.run(
                    [sys.executable, "-c", PROGRAM, folder, store],
                    cwd=build,
                    env=os.environ | {"PYTHONPATH": str(build), "OMP_NUM_THREADS": "1"},
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                ).stdout.split()
                found.append(float(printed[0]))
                keys[build] = printed[1]
    for build, found in seconds.items():
        middle = statistics.median(found)
        print(f"{build}: {middle:.2f} s of processor time, run key {keys[build]}")
    before, now = (statistics.median(found) for found in seconds.values())
    print(f"ratio {now / before:.2f}")


if __name__ == "__main__":
    main()
