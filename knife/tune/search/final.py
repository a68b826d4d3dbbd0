"""The end of a sweep: its winner, as a recipe that compares it with `finetune` on test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from knife.config.overrides import describe, merge
from knife.config.run import RunConfig, parse
from knife.core.atomic import write_text
from knife.track.secrets import redact
from knife.tune.search.space import Point, Space
from knife.tune.search.study import ranked
from knife.tune.search.trials import TrialRow

RECIPE = "best.yaml"
# If more trials tie, they are only counted.
_MOST_NAMED = 10

# Parts of a config that must be equal for a baseline to be comparable.
_SAME = ("data", "model")


def winner(space: Space, rows: Sequence[TrialRow]) -> TrialRow | None:
    """Return the best finished trial, of methods other than finetune if there are any; the first
    of a tie."""
    return next(iter(_candidates(space, rows)), None)


def tie_note(space: Space, rows: Sequence[TrialRow]) -> str:
    """Name the trials that tie with the winner, in a sentence; empty if there are none."""
    candidates = _candidates(space, rows)
    equal = [str(row.number) for row in candidates if row.score == candidates[0].score]
    if len(equal) < 2:
        return ""
    named = f" ({', '.join(equal)})" if len(equal) <= _MOST_NAMED else ""
    return f"{len(equal)} trials share the best score{named}; the first one wins."


def _candidates(space: Space, rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the trials that may win, best first."""
    finished = ranked(space, rows)
    most = max((len(row.scores) for row in finished), default=0)
    # A one-seed trial that is ahead of trials with more seeds may only be lucky.
    finished = [row for row in finished if len(row.scores) == most]
    others = [row for row in finished if method_of(space, row.point) != "finetune"]
    return others or finished


def method_of(space: Space, point: Point) -> str:
    """Return the method of a point: the method itself, not the name of a variant."""
    (variant,) = space.config(point).variants()
    return variant.method


def baselines(space: Space, best: TrialRow, rows: Sequence[TrialRow]) -> list[RunConfig]:
    """Return configs of `finetune` to choose from on dev, with the winner's data and models.

    If the sweep has trials of finetune on these, this is the best of them alone. Otherwise the
    student settings of the base and of the winner are both tried, so that the winner has no
    advantage from having been searched.
    """
    won = space.config(best.point)
    for row in ranked(space, rows):
        config = space.config(row.point)
        same = all(getattr(config, part) == getattr(won, part) for part in _SAME)
        if same and method_of(space, row.point) == "finetune":
            return [_finetune(config)]
    first = {key: value for key, value in best.point.items() if not key.startswith("student.")}
    given = _finetune(space.config(first))
    return list({c.student.model_dump_json(): c for c in (given, _finetune(won))}.values())


def _finetune(config: RunConfig) -> RunConfig:
    return parse(merge(config.model_dump(), {"methods": ["finetune"]}))


def recipe(space: Space, best: TrialRow, baseline: RunConfig) -> RunConfig:
    """Return the run config that compares the winner with `finetune`, with the final seeds."""
    assert space.sweep.final
    won = space.config(best.point)
    (method,) = won.methods
    changes: dict[str, Any] = {
        "name": f"{space.sweep.name}-best",
        "seeds": space.sweep.final.seeds,
        "methods": [method if isinstance(method, str) else method.model_dump()],
    }
    if method_of(space, best.point) != "finetune":
        ours, theirs = won.student.model_dump(), baseline.student.model_dump()
        differs = {key: value for key, value in theirs.items() if ours[key] != value}
        plain: Any = "finetune"
        if differs:
            plain = {"name": "finetune", "method": "finetune", "student": differs}
        changes["methods"] = [plain, *changes["methods"]]
    return parse(merge(won.model_dump(), changes))


def write_recipe(path: Path, config: RunConfig, space: Space, best: TrialRow) -> None:
    """Write the run config under a header comment that says where it comes from."""
    what = "higher" if space.sweep.direction == "max" else "lower"
    head = (
        f"# The best of sweep {space.sweep.name}, trial {best.number}: "
        f"{space.sweep.metric} {best.score:.4f} ({what} is better).\n"
        f"#\n#   knife run {path.name}\n#\n# {describe(best.point)}\n"
    )
    values = config.model_dump(mode="json")
    uri = config.track.uri if config.track else None
    if uri and redact(uri) != uri:
        # An address with a password must come from MLFLOW_TRACKING_URI.
        values["track"]["uri"] = None
    # A variant lists only what it changes.
    values["methods"] = [
        {key: value for key, value in method.items() if value}
        if isinstance(method, dict)
        else method
        for method in values["methods"]
    ]
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    write_text(path, head + text)
