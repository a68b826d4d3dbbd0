"""How long a run takes on many slots, by a simulated clock: the executor's own order of stages.

    python bench/makespan.py measure STORE    print mean seconds by kind of stage, from a real run
    python bench/makespan.py                  simulate 16 methods x 20 seeds with those below

The lower bound of a makespan is the larger of all work / slots and the longest chain of stages.
"""

import heapq
import json
import random
import sys
from collections import defaultdict
from itertools import count
from pathlib import Path
from statistics import fmean

from knife.config.run import parse
from knife.plan.pace import Pace
from knife.plan.plan import Plan, plan_run
from knife.plan.schedule import Schedule, Work
from knife.plan.stage import Stage, StudentStage

# Mean seconds of stages in `knife run creatures-full seeds=[0]`, one core each (measure, above).
SECONDS = {
    "teacher": 10.5,
    "states": 1.6,
    "evaluate": 0.5,
    "student finetune": 45.0,
    "student knife": 46.8,
    "student teacher_init": 45.5,
    "student answer_then_explain": 56.6,
    "student explain_then_answer": 60.2,
    "student rationale_input": 69.2,
    "student step_by_step": 95.5,
    "student retrieve": 104.0,
}
SLOTS = (2, 8, 64, 512)
SEEDS = 20
# 16 methods: those of creatures-full, and variants with other weights.
METHODS = [
    "finetune",
    "knife",
    "teacher_init",
    "rationale_input",
    "explain_then_answer",
    "answer_then_explain",
    "step_by_step",
    "retrieve",
    *(
        {"name": f"weight-{w}", "method": "knife", "align": {"input": {"weight": w}}}
        for w in range(1, 5)
    ),
    *(
        {
            "name": f"shuffled-{s}",
            "method": "knife",
            "data": {"rationale": "shuffled", "split_seed": s},
        }
        for s in range(1, 4)
    ),
    {"name": "open", "method": "knife", "teacher": {"bottleneck": False}},
]


def kind(stage: Stage) -> str:
    """Return the kind of a stage, and a student's method."""
    return f"student {stage.method}" if isinstance(stage, StudentStage) else stage.kind


def true_seconds(stage: Stage) -> float:
    """Return how long a stage takes in the simulation: its kind's mean, give or take 10 %."""
    return SECONDS[kind(stage)] * random.Random(stage.key).uniform(0.9, 1.1)


def simulate(plan: Plan, slots: int, losses: float = 0.0, seed: int = 0) -> tuple[float, float]:
    """Return makespan and lower bound; `losses` is the chance that a slot is lost during a stage,
    which then continues, after 10 s, from a checkpoint of a random time before."""
    chance, pace = random.Random(seed), Pace(plan.data)
    schedule = Schedule(pace.seconds)
    schedule.add(plan.stages)
    bound = max(work_of(plan) / slots, chain_of(plan))
    now, free = 0.0, slots
    left: dict[int, float] = {}
    running: list[tuple[float, int, Work, bool]] = []
    order = count()
    while schedule.unfinished():
        while free and (work := schedule.take()):
            free -= 1
            seconds = left.pop(id(work), true_seconds(work.stages[0]))
            lost = chance.random() < losses
            if lost:
                # Half a minute, at most, has no checkpoint.
                done = chance.uniform(0.0, seconds)
                left[id(work)] = seconds - max(0.0, done - chance.uniform(0.0, 30.0)) + 10.0
                seconds = done
            heapq.heappush(running, (now + seconds, next(order), work, lost))
        now, _, work, lost = heapq.heappop(running)
        free += 1
        if lost:
            schedule.put_back(work)
        else:
            pace.add(work.stages[0], true_seconds(work.stages[0]))
            schedule.done(work)
    return now, bound


def work_of(plan: Plan) -> float:
    """Return the seconds of all stages together."""
    schedule = Schedule(true_seconds)
    return sum(true_seconds(work.stages[0]) for work in schedule.add(plan.stages))


def chain_of(plan: Plan) -> float:
    """Return the seconds of the longest chain of stages."""
    schedule = Schedule(true_seconds)
    return max(schedule._length(work) for work in schedule.add(plan.stages))


def measure(store: Path) -> None:
    """Print mean seconds by kind of stage, as noted in the runs of a store."""
    found: dict[str, list[float]] = defaultdict(list)
    rows = [json.loads(line) for path in store.glob("runs/*/slots.jsonl") for line in path.open()]
    for row in rows:
        about = json.loads((store / row["kind"] / row["keys"][0] / "depends.json").read_text())
        name = f"student {about['method']}" if row["kind"] == "student" else row["kind"]
        found[name].append(row["end"] - row["begin"])
    print(json.dumps({name: round(fmean(values), 1) for name, values in sorted(found.items())}))


def main() -> None:
    """Simulate, and print a table."""
    config = {
        "name": "makespan",
        "data": {"source": "creatures"},
        "model": {"teacher": "tiny-t5", "student": "tiny-t5"},
        "methods": METHODS,
        "seeds": list(range(SEEDS)),
        "scale": {"launcher": "process"},
    }
    plan = plan_run(parse(config))
    print(f"{len(plan.stages)} stages, {work_of(plan) / 3600:.1f} hours of work on one slot")
    print("| slots | makespan | lower bound | ratio | with 5 % losses |")
    print("|---|---|---|---|---|")
    for slots in SLOTS:
        makespan, bound = simulate(plan, slots)
        lossy = fmean(simulate(plan, slots, 0.05, seed)[0] for seed in range(5))
        print(
            f"| {slots} | {makespan / 60:.1f} min | {bound / 60:.1f} min "
            f"| {makespan / bound:.3f} | {lossy / bound:.3f} |"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(Path(sys.argv[2]))
    else:
        main()
