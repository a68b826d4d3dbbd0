"""A sweep file, read with its base run config and overrides; all errors are reported at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from knife.config.overrides import Overrides, flat, merge, read_overrides, read_yaml
from knife.config.recipe_files import find_config
from knife.config.section_errors import section_errors
from knife.core.errors import UserError, nearest, raise_errors
from knife.data.source import KNOWN_SOURCES
from knife.models.source import NAMES
from knife.tune.search.settings import Sweep
from knife.tune.search.space import Space

_PATHS = ("data.source", "model.teacher", "model.student")
_NO_PATHS = {*KNOWN_SOURCES, *NAMES}
_OWN = {
    "name": "trials have the name of their sweep; search another key",
    "seeds": "seeds cannot be searched; set seeds.search and seeds.more",
    "store": "all trials must use one store to share teachers; set it for all",
    "track": "all trials are recorded in the same MLflow; set it for all",
    "scale": "all trials use the same workers and GPUs; set it for all",
}


def read_sweep(path: Path, overrides: Overrides | None = None) -> Space:
    """Read a sweep and its base; an override sets a key of the sweep or of the run config.

    A run config key that is overridden is not searched. Paths are made absolute, since workers have
    other working directories.

    Raises:
        UserError: with every error in the sweep, each by its dotted key.
    """
    if not path.is_file():
        raise UserError(f"SWEEP: the file {path} does not exist; give a sweep's YAML file")
    values = read_yaml(path)
    changes = read_overrides(overrides or [])
    own = {key: value for key, value in changes.items() if key in Sweep.model_fields}
    fixed = flat({key: value for key, value in changes.items() if key not in own})
    values = merge(values, own)
    if fixed and isinstance(values.get("space"), dict):
        values["space"] = {k: v for k, v in values["space"].items() if k not in fixed}
    if fixed and isinstance(values.get("first"), list):
        values["first"] = [
            {k: v for k, v in point.items() if k not in fixed} if isinstance(point, dict) else point
            for point in values["first"]
        ]
    if fixed and isinstance(values.get("set", {}), dict):
        values["set"] = flat(values.get("set", {})) | fixed
    values = {key: _absolute(key, value) for key, value in values.items()}
    try:
        sweep = Sweep.model_validate(values)
    except ValidationError as error:
        raise UserError(*section_errors(Sweep, error)) from None
    raise_errors(_errors(sweep))
    beside = path.parent / sweep.base
    base = read_yaml(beside if beside.is_file() else find_config(sweep.base))
    return Space(sweep, {key: _absolute(key, value) for key, value in base.items()})


def read_checked_sweep(path: Path, overrides: Overrides | None = None) -> Space:
    """Read a sweep as `read_sweep` does, and try every value of its space in the run config.

    Raises:
        UserError: as `read_sweep` does, or with every value that the run config refuses.
    """
    space = read_sweep(path, overrides)
    raise_errors(space.errors())
    return space


def _absolute(key: str, value: Any) -> Any:
    """Return `value` with every path in it made absolute, at any depth of a sweep or run config."""
    if isinstance(value, dict):
        return {inner: _absolute(f"{key}.{inner}", leaf) for inner, leaf in value.items()}
    if isinstance(value, list):
        return [_absolute(key, leaf) for leaf in value]
    # A mapping that is searched whole has its domain in the key: space.model.grid.teacher.
    plain = ".".join(part for part in key.split(".") if part not in ("choice", "grid"))
    if not isinstance(value, str) or not any(name in plain for name in _PATHS):
        return value
    path = Path(value).expanduser()
    return str(path.resolve()) if value not in _NO_PATHS and path.exists() else value


def _errors(sweep: Sweep) -> Iterator[str]:
    """Yield errors for values that are valid alone but not together."""
    leaves = flat(sweep.set)
    for key, domain in sweep.space.items():
        if key in leaves:
            yield f"set.{key}: is also in the space; remove it from one of the two"
        if key.partition(".")[0] in _OWN:
            yield f"space.{key}: {_OWN[key.partition('.')[0]]}"
        if sweep.search == "grid" and not domain.values:
            yield f"space.{key}: search 'grid' needs a list of values: grid or choice"
        if sweep.search != "grid" and domain.grid:
            yield f"space.{key}: a grid needs search 'grid'; give choice, or change search"
    if sweep.search != "grid" and sweep.budget.trials is None:
        yield f"budget.trials: must be set, since search {sweep.search!r} never ends by itself"
    if sweep.scheduler.name != "none" and len(sweep.seeds.search) > 1:
        yield (
            "seeds.search: a scheduler needs trials with one training each, but got "
            f"{len(sweep.seeds.search)} seeds; give one (seeds.more is for the best trials)"
        )
    for name, seeds in (("search", sweep.seeds.search), ("more", sweep.seeds.more)):
        if len(set(seeds)) < len(seeds):
            yield f"seeds.{name}: a seed is given twice"
    for number, point in enumerate(sweep.first):
        yield from _point_errors(f"first.{number}", point, sweep)


def _point_errors(where: str, point: dict[str, Any], sweep: Sweep) -> Iterator[str]:
    """Yield errors for a point in `first`, which needs a value from the domain of every key."""
    yield from (f"{where}: {key} is missing" for key in sweep.space if key not in point)
    for key, value in point.items():
        if key not in sweep.space:
            yield f"{where}.{key}: is not in the space; {nearest(key, sweep.space)}"
        elif not sweep.space[key].holds(value):
            yield f"{where}.{key}: {value!r} is not in the key's domain"
