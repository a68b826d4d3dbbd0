"""How long the report of a sweep with 200 trials takes, and how large it is.

python bench/sweep_report.py

The trials are synthetic, in the files that a sweep writes; nothing is trained.
"""

import json
import math
import random
import tempfile
import time
from pathlib import Path
from statistics import fmean

from knife.config.recipe_files import find_config
from knife.config.run import read
from knife.core.atomic import write_json
from knife.plan.plan import plan_run
from knife.store.store import Store
from knife.tune.report.data import RESULT, TRIALS
from knife.tune.report.report import sweep_report
from knife.tune.search.about import SweepAbout
from knife.tune.search.settings import Sweep
from knife.tune.search.space import Space
from knife.tune.search.study import best
from knife.tune.search.trials import TrialRow

TRIALS_COUNT = 200


def a_sweep(space: Space) -> list[TrialRow]:
    """Return trials of which every fifth is pruned and every fiftieth has failed."""
    draw = random.Random(0)
    rows = []
    for number, point in enumerate(space.points(), 1):
        rate, weight = point["student.learning_rate"], point["align.input.weight"]
        score = 0.75 - 0.1 * math.log10(rate / 2e-3) ** 2 - 0.04 * math.log10(weight / 30) ** 2
        score += 0.05 * math.log10(10 * point["data.fraction"]) + draw.gauss(0, 0.01)
        scores = {seed: score + draw.gauss(0, 0.01) for seed in range(3)}
        score = fmean(scores.values())
        failed, pruned = number % 50 == 0, number % 5 == 0
        rows.append(
            TrialRow(
                number=number,
                point=point,
                state="failed" if failed else "pruned" if pruned else "finished",
                score=None if failed else score,
                seconds=draw.uniform(40, 90),
                by_epoch=dict.fromkeys(range(1, 17), score),
                scores={} if failed else scores,
                students={seed: f"{number:08x}{seed:08x}" for seed in range(3)},
                error="the loss is nan at step 7" if failed else None,
            )
        )
    return rows


def main() -> None:
    """Make the sweep's folder, and its report."""
    weights = {"loguniform": [1, 300]}
    sweep = Sweep.model_validate(
        {
            "name": "many",
            "base": "demo",
            "space": {
                "align.input.weight": weights,
                "align.output.weight": {"uniform": [0, 1]},
                "align.input.layers": {"choice": ["last", "all"]},
                "student.learning_rate": {"loguniform": [1e-4, 1e-2]},
                "data.fraction": {"choice": [0.05, 0.1, 0.3, 1.0]},
            },
            "scheduler": {"name": "asha", "grace": 8, "reduction": 2},
            "budget": {"trials": TRIALS_COUNT},
            "final": None,
        }
    )
    space = Space(sweep, {"methods": ["knife"]})
    rows = a_sweep(space)
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name) / "store")
        folder = store.root / "sweeps" / sweep.name
        folder.mkdir(parents=True)
        about = SweepAbout(folder, space, "made-up", plan_run(read(find_config("demo"), [])))
        for row in rows:
            about.started(row.number, row.point, None, "search")
        about.end("finished")
        found = best(space, rows)
        assert found
        write_json(folder / TRIALS, [row.to_dict() for row in rows])
        write_json(folder / RESULT, {"best": found.to_dict()})
        started = time.monotonic()
        html = sweep_report(folder, store)
        seconds = time.monotonic() - started
    size = len(html.encode()) / 1e6
    print(json.dumps({"trials": len(rows), "seconds": round(seconds, 1), "MB": round(size, 2)}))


if __name__ == "__main__":
    main()
