"""A run as a tree of MLflow's runs: a parent, with nested runs for the teacher and each student.

It is made from the run's folder and the artifacts in the store, and from nothing else.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from knife.core import strict_json
from knife.core.words import counted
from knife.report.markdown import verdict_markdown
from knife.report.run_data import RECORD
from knife.report.run_page import NAME as REPORT
from knife.stats.verdict import Verdict
from knife.store.store import Store
from knife.track.node import SYSTEM, DataSet, RunNode, Status
from knife.track.params import to_tags
from knife.track.starts import finished_at, last_row_time, status_of
from knife.train.results import PREDICTIONS, TRAINED, accuracy

NOTE = "mlflow.note.content"
VERDICT = "verdict.json"


def run_tree(folder: Path, store: Store, *, alive: bool) -> RunNode | None:
    """Return the tree of the run in a folder; None if an earlier version recorded too little.

    `alive` says whether a process is working on it.
    """
    record = json.loads((folder / RECORD).read_text())
    if "params" not in record:
        return None
    config = json.loads((folder / "config.json").read_text())
    below = f"runs/{folder.name}"
    stages = [(stage["kind"], stage["key"]) for stage in record["stages"]]
    starts = record["starts"]
    status, ended = status_of(starts, lambda: last_row_time(store, stages), alive=alive)
    began = starts[0]["time"]
    done = status == "FINISHED"
    best = champion(record, store) if done else None
    register = (config["track"] or {}).get("register")
    parent = _Parent(record, store, began, status, ended)
    children = [_teacher(parent)] if record["teacher"] else []
    for member in record["members"]:
        children.append(_student(parent, member, register if member == best else None))
    tags = record["tags"] | _note(config, record, status)
    summary: dict[str, float] = {}
    files: list[str] = []
    if best:
        verdict = Verdict.from_dict(json.loads((folder / VERDICT).read_text()))
        tags |= {"knife.champion": _name(best), "knife.champion.key": best["student"]}
        tags |= {NOTE: _ended_note(verdict, _name(best), register)} | _hosts_tag(record, store)
        summary = verdict_metrics(verdict)
        files = [f"{below}/{name}" for name in (VERDICT, REPORT) if (folder / name).is_file()]
    return RunNode(
        key=record["key"],
        name=record["name"],
        began=began,
        status=status,
        ended=ended,
        params=record["params"],
        tags=to_tags(tags),
        inputs=tuple(DataSet(**each) for sets in record["data"].values() for each in sets),
        row_file=f"{below}/{SYSTEM}",
        summary=summary,
        texts={"config.yaml": as_yaml(strict_json.dumps(config))},
        files=tuple(files),
        children=tuple(children),
    )


@dataclass(frozen=True)
class _Parent:
    record: dict[str, Any]
    store: Store
    began: float
    status: Status
    ended: float | None

    def nested(
        self, name: str, key: str, about: dict[str, Any], *stages: tuple[str, str]
    ) -> RunNode:
        """Return the nested run of some stages, of which the first is its training. It has ended
        if the store has the last one, or else ends with the parent."""
        training, status, ended = stages[0], self.status, self.ended
        if finished := finished_at(self.store, *stages[-1]):
            # It may have been made before this run.
            status, ended = "FINISHED", max(self.began, finished)
        tags = {"knife.method": about["params"]["method"], "knife.fingerprint": training[1]}
        return RunNode(
            key=key,
            name=name,
            began=self.began,
            status=status,
            ended=ended,
            params=about["params"],
            tags=to_tags(tags | {"knife.data": about["data"]}),
            inputs=tuple(DataSet(**each) for each in self.record["data"][about["data"]]),
            journals=stages,
            summary=trained_metrics(self.store, *training)
            if finished_at(self.store, *training)
            else {},
            texts={},
        )


def _teacher(parent: _Parent) -> RunNode:
    about, store = parent.record["teacher_run"], parent.store
    key = parent.record["teacher"]
    node = parent.nested("teacher", key, about, ("teacher", key))
    found = {
        f"test_accuracy_{name}_rationale": _accuracy(store, stage)
        for name, stage in parent.record["ceiling"].items()
        if finished_at(store, "evaluate", stage)
    }
    return replace(node, summary=node.summary | found)


def _student(parent: _Parent, member: dict[str, Any], registered: str | None) -> RunNode:
    student, evaluate = ("student", member["student"]), ("evaluate", member["evaluate"])
    key = f"{member['method']}-{member['student']}"
    node = parent.nested(_name(member), key, member, student, evaluate)
    if parent.status != "FINISHED":
        return node
    folder = "/".join(student)
    files = (f"{'/'.join(evaluate)}/{PREDICTIONS}", f"{folder}/README.md")
    return replace(node, files=files, model=f"{folder}/model", registered=registered)


# The config is the same every second, and yaml is slow.
@lru_cache(maxsize=64)
def as_yaml(text: str) -> str:
    """Return a JSON document as YAML."""
    return yaml.safe_dump(json.loads(text), sort_keys=False, allow_unicode=True)


def champion(record: dict[str, Any], store: Store) -> dict[str, Any]:
    """Return the student to use: the best on dev, of the method with the best mean on dev."""
    dev: dict[str, list[tuple[float, float]]] = {}
    scores: list[tuple[float, float]] = []
    members: list[dict[str, Any]] = record["members"]
    for member in members:
        values = trained_metrics(store, "student", member["student"])
        scores.append((values["dev_accuracy"], -values["dev_loss"]))
        dev.setdefault(member["method"], []).append(scores[-1])
    mean = {
        name: [fmean(values) for values in zip(*each, strict=True)] for name, each in dev.items()
    }
    best = max(mean, key=mean.__getitem__)
    own = [pair for pair in zip(scores, members, strict=True) if pair[1]["method"] == best]
    return max(own, key=lambda pair: pair[0])[1]


# What is published under a key never changes, and the tree is made again every second.
@lru_cache(maxsize=4096)
def trained_metrics(store: Store, kind: str, key: str) -> dict[str, float]:
    """Return a training's metrics: its best evaluation on dev, and what it cost."""
    trained = json.loads(store.read(kind, key, TRAINED))
    named = {name: name for name in ("dev_accuracy", "dev_loss")}
    named |= {n: f"train_{n}" for n in ("seconds", "steps", "memory_mib", "gpu_memory_mib")}
    return {new: float(trained[name]) for name, new in named.items() if name in trained}


@lru_cache(maxsize=64)
def _accuracy(store: Store, key: str) -> float:
    return accuracy(store, key)


def verdict_metrics(verdict: Verdict) -> dict[str, float]:
    """Return the verdict's numbers, named by method; unknown ones are left out."""
    found: dict[str, float | None] = {}
    for each in verdict.methods:
        values = {"test_accuracy": each.accuracy, "test_accuracy_low": each.low}
        values["test_accuracy_high"] = each.high
        if each.difference:
            values |= {"gain_points": each.difference.points, "p": each.difference.p_adjusted}
            values |= {"gain_low_points": each.difference.low}
            values |= {"gain_high_points": each.difference.high}
        found |= {f"{name}.{each.method}": value for name, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}


def failed_note(start: dict[str, Any]) -> str:
    """Return the description of a run or sweep whose last start failed, with the reason."""
    why = start["reason"].strip()[:2000].replace("```", "'''")
    return f"Failed; the same command resumes it. The reason:\n\n```text\n{why}\n```"


def _note(config: dict[str, Any], record: dict[str, Any], status: Status) -> dict[str, str]:
    """Return the description of a run that has no verdict."""
    if status == "FAILED":
        return {NOTE: failed_note(record["starts"][-1])}
    methods = ", ".join(dict.fromkeys(member["method"] for member in record["members"]))
    seeds = ", ".join(map(str, config["seeds"]))
    source = config["data"]["source"]
    words = f"Running or interrupted: {methods} on {source}, seeds {seeds}. No verdict yet."
    return {NOTE: words}


def _ended_note(verdict: Verdict, best: str, registered: str | None) -> str:
    """Return the description of a finished run: its verdict, and which student to use."""
    use = f"Student to use, by its accuracy on dev: **{best}**"
    use += f", `models:/{registered}@champion`." if registered else "."
    return f"{verdict_markdown(verdict)}\n\n{use}"


def _hosts_tag(record: dict[str, Any], store: Store) -> dict[str, str]:
    """Return a tag with the shape of the cluster that made the students: workers and hosts."""
    found = [_hosts(store, member["student"]) for member in record["members"]]
    shapes = dict.fromkeys(shape for shape in found if shape)
    return {"knife.cluster": "; ".join(shapes)} if shapes else {}


@lru_cache(maxsize=4096)
def _hosts(store: Store, key: str) -> str:
    if "workers.json" not in (store.manifest("student", key) or {})["files"]:
        return ""
    rows = json.loads(store.read("student", key, "workers.json"))
    hosts = {row["host"] for row in rows}
    return f"{counted(len(rows), 'worker')} on {counted(len(hosts), 'host')}"


def _name(member: dict[str, Any]) -> str:
    return f"{member['method']} seed {member['seed']}"
