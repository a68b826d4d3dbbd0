"""Does KNIFE teach a real pretrained encoder real facts? The protocol of docs/proof.md.

    python bench/proof.py STORE [WORLD | NAME=FOLDER ...]

For each world (by default all): `finetune` and `knife`, each at its own learning rate, on test
questions about the names of training and about other names; in `countries` also controls, and parts
of the training split. FOLDER is a data set of your own, such as QASC. Takes hours on 2 cores. What
STORE has is not made again.
"""

import sys
from typing import Any

from knife import run
from knife.config.overrides import merge
from knife.pipeline.run import Result
from knife.stats.compare import holm
from knife.stats.verdict import MethodVerdict

SIZES = {
    "countries": {"names": 64, "dev": 120, "test": 240},
    "numbers": {"names": 72, "dev": 120, "test": 240},
    "elements": {"names": 64, "dev": 120, "test": 240},
}
SEEDS = [0, 1, 2, 3, 4]
FEWER_SEEDS = [0, 1, 2]
FRACTIONS = {0.1: SEEDS, 0.25: FEWER_SEEDS, 0.5: FEWER_SEEDS}
RATES = {"finetune": [5e-5, 1e-4, 2e-4], "knife": [2e-4, 4e-4, 6e-4]}
SEARCHED = [
    {"name": method, "method": method, "student": {"learning_rate": {"search": rates}}}
    for method, rates in RATES.items()
]
CONTROLS: dict[str, dict[str, Any]] = {
    "shuffled": {"data": {"rationale": "shuffled"}},
    "no-bottleneck": {"teacher": {"bottleneck": False}},
    "choices": {"align": {"input": {"weight": 0}, "output": {"weight": 1, "target": "choices"}}},
}


def make(name: str, store: str, source: str, **changes: Any) -> Result:
    common: dict[str, Any] = {
        "name": name,
        "seeds": SEEDS,
        "store": store,
        "track": None,
        "scale": {"launcher": "process"},
        "data": {"source": source},
    }
    if source in SIZES:
        common["data"]["facts"] = SIZES[source]
    else:
        common |= {"teacher": {"gate": {"below": "warn"}}, "seeds": FEWER_SEEDS}
        common["data"]["max_tokens"] = 128
    return run("countries", **merge(common, changes))


def chosen(result: Result) -> list[dict[str, Any]]:
    """Return the methods of a run with the settings that they chose, as variants."""
    return [variant.model_dump() for variant in result.plan.config.variants()]


def main() -> None:
    store, *worlds = sys.argv[1:]
    found, others, rest = {}, {}, {}
    for given in worlds or SIZES:
        world, _, folder = given.partition("=")
        found[world] = make(f"proof-{world}", store, folder or world, methods=SEARCHED)
        if folder:
            continue
        methods = chosen(found[world])
        facts = SIZES[world] | {"split": "names"}
        others[world] = make(
            f"proof-{world}-names", store, world, methods=methods, data={"facts": facts}
        )
    if "countries" in found:
        methods = chosen(found["countries"])
        knife = next(m for m in methods if m["method"] == "knife")
        # As long as the teacher that passed its gate; others are not held to it.
        config = found["countries"].plan.config
        epochs = {"teacher": config.teacher.epochs, "student": config.student.epochs}
        controls = [merge(knife, {"name": n, **c}) for n, c in CONTROLS.items()]
        rest["controls"] = make(
            "proof-controls",
            store,
            "countries",
            methods=[*methods, *controls],
            teacher={"epochs": epochs["teacher"], "gate": None},
        )
        for fraction, seeds in FRACTIONS.items():
            longer = {part: round(n * min(4, 1 / fraction)) for part, n in epochs.items()}
            rest[f"{fraction:g} of train"] = make(
                f"proof-low-{fraction:g}",
                store,
                "countries",
                methods=methods,
                seeds=seeds,
                data={"fraction": fraction},
                teacher={"epochs": longer["teacher"], "gate": None},
                student={"epochs": longer["student"]},
            )
    corrected = holm([of(result, "knife").difference.p for result in found.values()])
    print("| world | teacher with / without | finetune | knife | difference | p, Holm |")
    print("|---|---|---|---|---|---|")
    for (world, result), p in zip(found.items(), corrected, strict=True):
        print(f"| {world} | {ceiling(result)} | {row(result)} | {p:.2g} |")
    for title, results in (("other names", others), ("countries", rest)):
        print(f"\n| {title} | | finetune | knife | difference |")
        print("|---|---|---|---|---|")
        for name, result in results.items():
            print(f"| {name} | {ceiling(result)} | {row(result)} |")
            for method in result.verdict.methods:
                if method.method not in ("finetune", "knife"):
                    print(f"| | | {method.method} | {points(method)} | {difference(method)} |")


def of(result: Result, name: str) -> Any:
    return next(m for m in result.verdict.methods if m.method == name)


def ceiling(result: Result) -> str:
    found = result.verdict.ceiling
    shares = (found.with_rationale, found.without_rationale) if found else (None, None)
    return " / ".join("-" if share is None else f"{100 * share:.1f}" for share in shares)


def row(result: Result) -> str:
    finetune, knife = of(result, "finetune"), of(result, "knife")
    return f"{points(finetune)} | {points(knife)} | {difference(knife)}"


def points(method: MethodVerdict) -> str:
    low, high = method.low, method.high
    spread = "" if low is None or high is None else f" ({100 * low:.1f}-{100 * high:.1f})"
    return f"{100 * method.accuracy:.1f}{spread}"


def difference(method: MethodVerdict) -> str:
    found = method.difference
    assert found
    spread = "" if found.low is None else f" ({found.low:+.1f} to {found.high:+.1f})"
    p = found.p_corrected
    shown = "" if p is None else f", p = {p:.2g}, {found.gained}/{found.lost}"
    return f"{found.points:+.1f}{spread}{shown}"


if __name__ == "__main__":
    main()
