"""The conditions that `knife forecast` is fitted to: the gain of knife in worlds of many kinds.

    python bench/forecast.py FOLDER

Draws conditions for fitting and for testing by two seeds, the second with values that the first
does not have; writes the data of each into FOLDER, trains finetune and knife on them, and adds what
it found, with what a forecast reads, to bench/forecast.jsonl. What that has is not measured again.
They alternate, so that a part of them is of use. `scripts/fit_forecast.py` fits the forecast.
"""

import itertools
import json
import os
import random
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import knife
from knife.config.run import World, parse
from knife.core import strict_json
from knife.core.atomic import write_text
from knife.data.creatures import ATTRIBUTES, Attribute, facts_of
from knife.pipeline.forecast import forecast_run
from knife.terminal.display import no_display

MEASURED = Path(__file__).with_suffix(".jsonl")
FIT, TEST = 48, 48
DEV_QUESTIONS, TEST_QUESTIONS = 100, 300
STEPS, BATCH = 500, 32
TEACHER_STEPS = 94
RATES = {"tiny-t5": (5e-4, 5e-3), "tiny-bert": (5e-4, 2.5e-3), "tiny-llama": (2e-3, 2.5e-3)}


@dataclass(frozen=True)
class Condition:
    """One kind of data and a model.

    Attributes:
        name: fit-NUMBER or test-NUMBER.
        seed: of the world.
        creatures, attributes: facts are creatures times attributes.
        mentions: how many training rationales would state each fact, if all did.
        cue: share of questions that state the facts themselves.
        leak, bare: share of rationales that say the answer, and of these without facts.
        wrong: share of stated facts that are wrong.
        off: share of rationales about other creatures than the question.
        dropped: share of training questions without a rationale.
        unseen: share of dev and test questions about creatures that train does not have.
        which: share of "which one" questions.
        teacher_steps: how long the teacher is trained.
    """

    name: str
    model: str
    seed: int
    creatures: int
    attributes: int
    mentions: float
    cue: float
    leak: float = 0.0
    bare: float = 0.0
    wrong: float = 0.0
    off: float = 0.0
    dropped: float = 0.0
    unseen: float = 0.0
    which: float = 0.0
    teacher_steps: int = TEACHER_STEPS


# By purpose: the worlds, and the values of each factor that makes rationales or teacher worse.
WORLDS = {
    "fit": ((24, 3), (32, 2), (32, 3), (48, 1), (48, 3), (64, 1), (64, 2), (64, 3)),
    "test": ((20, 3), (28, 3), (40, 2), (40, 3), (56, 1), (56, 2), (60, 3)),
}
MENTIONS = {"fit": (0.5, 25.0), "test": (0.3, 40.0)}
CUES = {"fit": (0.0, 0.0, 0.25, 0.5, 0.9), "test": (0.0, 0.1, 0.4, 0.7, 1.0)}
WORSE: dict[str, dict[str, tuple[float, ...]]] = {
    "fit": {
        "leak": (0.2, 0.5, 1.0),
        "wrong": (0.1, 0.25, 0.5),
        "off": (0.2, 0.5, 0.8),
        "dropped": (0.25, 0.5, 0.8),
        "unseen": (0.3, 0.6, 1.0),
        "which": (0.5, 1.0),
        "teacher_steps": (8, 25),
    },
    "test": {
        "leak": (0.1, 0.35, 0.8),
        "wrong": (0.05, 0.35, 0.7),
        "off": (0.1, 0.35, 1.0),
        "dropped": (0.1, 0.4, 0.9),
        "unseen": (0.15, 0.45, 0.8, 1.0),
        "which": (0.3, 0.7),
        "teacher_steps": (4, 15, 50),
    },
}


def conditions(purpose: str, number: int) -> list[Condition]:
    """Draw conditions: of 10, 3 have good rationales, 4 are worse in one way and 3 in two."""
    rng = random.Random(f"forecast {purpose}")
    found = []
    for index in range(number):
        creatures, attributes = rng.choice(WORLDS[purpose])
        low, high = MENTIONS[purpose]
        ways = rng.sample(sorted(WORSE[purpose]), rng.choice([0, 0, 0, 1, 1, 1, 1, 2, 2, 2]))
        worse: dict[str, Any] = {way: rng.choice(WORSE[purpose][way]) for way in ways}
        if "leak" in worse:
            worse["bare"] = rng.choice([0.0, 0.5, 1.0])
        found.append(
            Condition(
                name=f"{purpose}-{index}",
                model=list(RATES)[index % len(RATES)],
                seed=index + (1000 if purpose == "test" else 0),
                creatures=creatures,
                attributes=attributes,
                mentions=round(low * (high / low) ** rng.random(), 2),
                cue=rng.choice(CUES[purpose]),
                **worse,
            )
        )
    return found


class Written:
    """The data of a condition: no pair of creatures is both in train and in another split."""

    def __init__(self, condition: Condition) -> None:
        self._of = condition
        self._rng = random.Random(f"written {condition.name}")
        self._facts = facts_of(World(creatures=condition.creatures, seed=condition.seed))
        names = sorted(self._facts["home"])
        self._rng.shuffle(names)
        new = round(len(names) / 3) if condition.unseen else 0
        attributes = self._rng.sample(ATTRIBUTES, condition.attributes)
        self._known, self._new = names[new:], names[:new]
        self._train, self._asked = self._pools(attributes, self._known, 0.4)
        _, self._asked_new = self._pools(attributes, self._new, 1.0)

    def splits(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of each split."""
        of = self._of
        train = round(of.mentions * len(self._known) * of.attributes / 2)
        return {
            "train": self._rows("train", max(train, 24), 0.0),
            "dev": self._rows("dev", DEV_QUESTIONS, of.unseen),
            "test": self._rows("test", TEST_QUESTIONS, of.unseen),
        }

    def _pools(self, attributes: list[Attribute], names: list[str], share: float) -> Any:
        """Return the pairs of train, and a share of all of them for dev and test, by whether they
        have the same value."""
        pools: Any = ({True: [], False: []}, {True: [], False: []})
        for attribute in attributes:
            of = self._facts[attribute.name]
            for same in (True, False):
                pairs = [
                    (attribute, x, y)
                    for x, y in itertools.combinations(names, 2)
                    if (of[x] == of[y]) == same
                ]
                self._rng.shuffle(pairs)
                cut = round(share * len(pairs))
                pools[1][same] += pairs[:cut]
                pools[0][same] += pairs[cut:]
        return pools

    def _rows(self, split: str, number: int, unseen: float) -> list[dict[str, Any]]:
        kinds = ["which" if n < round(self._of.which * number) else "same" for n in range(number)]
        rows = []
        for index, kind in enumerate(kinds):
            new = index % 20 < round(20 * unseen)
            known = self._train if split == "train" else self._asked
            same = kind == "same" and index % 2 == 0
            topic = self._rng.choice((self._asked_new if new else known)[same])
            rows.append({"id": f"{split}-{index}", **self._row(kind, topic, index)})
            if split == "train" and self._rng.random() < self._of.dropped:
                del rows[-1]["rationale"]
        self._rng.shuffle(rows)
        return rows

    def _row(self, kind: str, topic: tuple[Attribute, str, str], index: int) -> dict[str, Any]:
        rng, of = self._rng, self._of
        attribute, *pair = topic
        rng.shuffle(pair)
        values = [self._facts[attribute.name][name] for name in pair]
        said = attribute.cue if rng.random() < of.cue else "a {n}"
        x, y = (said.format(n=n, v=v) for n, v in zip(pair, values, strict=True))
        if kind == "which":
            choices, place = pair, index // 2 % 2
            question = attribute.which.format(v=values[place], x=x, y=y)
        else:
            choices, place = ["yes", "no"], int(values[0] != values[1])
            question = attribute.same.format(x=x, y=y)
        told = pair
        if rng.random() < of.off:
            told = rng.sample([name for name in self._known if name not in pair], 2)
        sentences = [self._fact(attribute, name) for name in told]
        if rng.random() < of.leak:
            sentences = [] if rng.random() < of.bare else sentences
            sentences.append(f"so the answer is {choices[place]} .")
        rationale = " ".join(sentences)
        answer = choices[place]
        return {
            "question": question, "choices": choices, "answer": answer, "rationale": rationale
        }  # fmt: skip

    def _fact(self, attribute: Attribute, name: str) -> str:
        value = self._facts[attribute.name][name]
        if self._rng.random() < self._of.wrong:
            value = self._rng.choice([other for other in attribute.values if other != value])
        return self._rng.choice(attribute.facts).format(n=name, v=value)


def config(condition: Condition, folder: Path) -> dict[str, Any]:
    """Return the run config of a condition: both methods make the same number of steps."""
    data = folder / "data" / condition.name
    with (data / "train.jsonl").open(encoding="utf-8") as lines:
        steps = -(-sum(1 for _ in lines) // BATCH)
    teacher, student = RATES[condition.model]
    epochs = max(1, round(STEPS / steps))
    return {
        "name": condition.name,
        "data": {"source": str(data)},
        "model": {"teacher": condition.model, "student": condition.model},
        "methods": ["finetune", "knife"],
        "seeds": [0, 1],
        "teacher": _training(max(1, round(condition.teacher_steps / steps)), teacher, 3),
        "student": _training(epochs, student, 4),
        "scale": {"launcher": "process"},
        "track": None,
        "store": str(folder / "stores" / condition.name),
    }


def _training(epochs: int, rate: float, evaluations: int) -> dict[str, Any]:
    """Return a training that is evaluated about so many times."""
    often = max(1, epochs // evaluations)
    return {
        "epochs": epochs, "learning_rate": rate, "batch_size": BATCH, "evaluate_epochs": often
    }  # fmt: skip


def measure(condition: Condition, folder: Path) -> dict[str, Any]:
    """Return the condition with what its run found and what `knife forecast --teacher` reads."""
    data = folder / "data" / condition.name
    data.mkdir(parents=True, exist_ok=True)
    for split, rows in Written(condition).splits().items():
        lines = (strict_json.dumps(row) + "\n" for row in rows)
        write_text(data / f"{split}.jsonl", "".join(lines))
    start = time.process_time()
    settings = config(condition, folder)
    verdict = knife.run(settings).verdict
    accuracies = {method.method: method.accuracy for method in verdict.methods}
    seconds = time.process_time() - start
    # Reads the teacher and the student that the run made.
    found = forecast_run(parse(settings), no_display, teacher=True).forecast
    assert verdict.ceiling
    assert found.scores
    shutil.rmtree(settings["store"])
    return {
        **asdict(condition),
        "finetune": round(100 * accuracies["finetune"], 2),
        "knife": round(100 * accuracies["knife"], 2),
        "gain": round(100 * (accuracies["knife"] - accuracies["finetune"]), 2),
        "ceiling": asdict(verdict.ceiling),
        "seconds": round(seconds, 1),
        "features": asdict(found.features),
        "scores": asdict(found.scores),
    }


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = Path(sys.argv[1]).absolute()
    lines = MEASURED.read_text(encoding="utf-8").splitlines()
    done = {json.loads(line)["name"] for line in lines}
    for pair in zip(conditions("fit", FIT), conditions("test", TEST), strict=True):
        for condition in pair:
            if condition.name not in done:
                lines.append(strict_json.dumps(measure(condition, folder)))
                write_text(MEASURED, "\n".join(lines) + "\n")
                print(lines[-1], flush=True)


if __name__ == "__main__":
    main()
