"""The method on the embedded world: learning rates chosen on dev, then the table on test.

python bench/creatures.py choose [CUE …]   # a world and seeds that the table does not use
python bench/creatures.py table [CUE …]    # `knife run creatures-full`; CUE: 0.0 and 0.5

Both keep their results in ./knife-store, so a second start prints them immediately.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

KNIFE = [sys.executable, "-m", "knife"]
CUES = [float(cue) for cue in sys.argv[2:]] or [0.0, 0.5]
# World and training of `creatures-full`, on the methods of `demo`.
FULL = (
    "data.world={creatures: 64, train: 2000, dev: 200, test: 400, seed: 1}",
    "methods=[finetune, knife, {name: shuffled, method: knife, data: {rationale: shuffled}}]",
    "teacher.epochs=3",
    "student={epochs: 20, evaluate_epochs: 5}",
)
RATES = ("2.5e-3", "5e-3")
# The students are too small for Ray's start-up to be worth it.
PROCESS = "scale.launcher=process"


def run(*words: str) -> dict[str, Any]:
    """Run a config and return its JSON document; progress goes to stderr."""
    done = subprocess.run(
        [*KNIFE, "run", *words, "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def choose() -> None:
    """Print dev accuracy by learning rate, in a separate world; the best has the highest sum."""
    for cue in CUES:
        accuracies: dict[str, dict[str, float]] = {}
        for rate in RATES:
            found = run(
                "demo", "name=choose", "seeds=[100]", *FULL,
                f"data.world.cue={cue}", f"student.learning_rate={rate}", PROCESS,
            )  # fmt: skip
            for student in found["students"]:
                trained = json.loads((Path(student["folder"]) / "trained.json").read_text())
                accuracies.setdefault(student["method"], {})[rate] = trained["dev_accuracy"]
        for method, by_rate in accuracies.items():
            words = ", ".join(f"{rate}: {100 * a:.1f}" for rate, a in by_rate.items())
            print(f"cue {cue}  {method:9} dev accuracy by learning rate  {words}", flush=True)


def table() -> None:
    """Print every method with its difference to finetune."""
    for cue in CUES:
        found = run("creatures-full", f"name=creatures-cue-{cue}", f"data.world.cue={cue}", PROCESS)
        verdict = found["verdict"]
        print(f"cue {cue}: {json.dumps(verdict['ceiling'])}")
        for method in verdict["methods"]:
            difference = method["difference"]
            line = f"cue {cue}  {method['method']:24} {100 * method['accuracy']:5.1f}"
            line += f" ± {100 * method['sd']:.1f}"
            if difference:
                low, high = difference["low"], difference["high"]
                line += f"  {difference['points']:+5.1f} ({low:+.1f} to {high:+.1f})"
                line += f"  p = {difference['p']:.2g}"
            print(line, flush=True)


if __name__ == "__main__":
    {"choose": choose, "table": table}[sys.argv[1]]()
