"""Distil free-text rationales into small language models with the KNIFE method.

`run`, `sweep` and `predict` do what the commands `knife run`, `knife tune` and `knife predict` do.
They raise `UserError` for invalid input. What takes seconds to import is imported when called.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knife.core.errors import UserError, raise_errors
from knife.core.version import __version__

if TYPE_CHECKING:
    from knife.inference.file import Predictions
    from knife.pipeline.run import Result
    from knife.tune.sweep import SweepResult

__all__ = ["UserError", "__version__", "predict", "run", "sweep"]


def run(config: str | Path | Mapping[str, Any], **overrides: Any) -> Result:
    """Train teacher and students, evaluate and compare them; results in the store are reused.

        result = run("demo", seeds=[0, 1], student={"epochs": 8}, store="here")
        print(result.verdict.methods, result.students)

    Args:
        config: a recipe's name, the path of a YAML file, or a run config as a mapping.
        overrides: keys of the config to set; a mapping sets only the keys that it has.
            `data={"source": rows}` takes rows as mappings, a `datasets.Dataset`, a pandas frame, or
            a mapping of splits to these, and keeps them as files in the store.

    Raises:
        UserError: with all errors in config, data, models, store or cluster.
    """
    from knife.config.overrides import merge, read_overrides, read_yaml
    from knife.config.recipe_files import find_config
    from knife.config.run import parse
    from knife.pipeline.run import run
    from knife.terminal.display import display

    if isinstance(config, Mapping):
        values = _plain(config)
    else:
        values = read_yaml(find_config(_path("config", config)))
    found, overrides = _rows(overrides)
    parsed = parse(merge(values, read_overrides(_plain(overrides))))
    for rows in found:
        from knife.data.given import write_given
        from knife.store.store import store_root

        source = write_given(rows, store_root(parsed.store) / "given")
        data = parsed.data.model_copy(update={"source": str(source)})
        parsed = parsed.model_copy(update={"data": data})
    return run(parsed, display)


def sweep(path: str | Path, *, resume: bool = False, **overrides: Any) -> SweepResult:
    """Search a space of run configs, or resume a sweep.

        result = sweep("weights.yaml", budget={"trials": 4})
        print(result.best.point, result.verdict)

    Args:
        path: the sweep's YAML file.
        resume: refuse to start a new one.
        overrides: keys of the sweep or of its run config to set; the latter are not searched.

    Raises:
        UserError: with all errors in sweep, data, models, store or cluster.
        RuntimeError: no trial has succeeded.
    """
    from knife.tune.command import plan_file
    from knife.tune.sweep import run_sweep

    file = Path(_path("path", path)).expanduser()
    return run_sweep(plan_file(file, _plain(overrides)), resume=resume)


def predict(
    student: str | Path,
    examples: str | Path | Iterable[Mapping[str, Any]],
    *,
    skip_too_long: bool = False,
) -> Predictions:
    """Answer questions with a student; neither answers nor rationales are needed.

        question = {"id": "1", "question": "can a kebik swim ?", "choices": ["yes", "no"]}
        for row in predict("knife-store/student/KEY", [question]).rows:
            print(row["id"], row["choice"], row["probabilities"])

    Args:
        student: its folder or url, STORE/student/KEY.
        examples: mappings like the lines of a JSON Lines file, or the path of such a file.
        skip_too_long: give a question that is too long for the student a row without a choice, and
            count it; otherwise such a question is a user error.

    Raises:
        UserError: with what is wrong with the student, or all errors in the examples.
    """
    from knife.inference.file import predict, predict_examples
    from knife.store.store import artifact_folder

    folder = artifact_folder(_path("student", student))
    if isinstance(examples, str | Path):
        return predict(folder, Path(examples), skip_too_long=skip_too_long)
    return predict_examples(folder, examples, skip_too_long=skip_too_long)


def _rows(overrides: dict[str, Any]) -> tuple[list[object], dict[str, Any]]:
    """Return the data in `data={"source": …}`, if it is no name or path, in a list, and the
    overrides with a name in its place."""
    data = overrides.get("data")
    if not isinstance(data, Mapping) or isinstance(data.get("source", ""), str | os.PathLike):
        return [], overrides
    return [data["source"]], overrides | {"data": {**data, "source": "creatures"}}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as they would be read from a YAML file.

    Raises:
        UserError: YAML cannot represent some of them.
    """
    from knife.core.values import plain

    found, errors = dict[str, Any](), []
    for key, value in values.items():
        try:
            found[str(key)] = plain(value)
        except (TypeError, ValueError) as error:
            errors.append(f"{key}: {error}; give a value that YAML can represent")
    raise_errors(errors)
    return found


def _path(name: str, value: object) -> str:
    """Return the text of a path, name or url.

    Raises:
        UserError: it is none of these.
    """
    if isinstance(value, str | os.PathLike):
        return str(os.fspath(value))
    raise UserError(f"{name}: must be a path or a name, but got {type(value).__name__}")
