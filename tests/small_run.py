"""A small run config for tests: seconds on one core."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from knife.config.overrides import merge
from knife.config.run import RunConfig, parse

SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"source": "creatures", "world": {"creatures": 64, "train": 40, "dev": 20, "test": 20}},
    "model": {"teacher": "tiny-t5", "student": "tiny-t5"},
    "methods": ["knife"],
    "seeds": [0],
    "teacher": {"epochs": 2, "batch_size": 20, "learning_rate": 5e-4},
    "student": {"epochs": 2, "batch_size": 20, "learning_rate": 3e-3},
    "scale": {"launcher": "process"},
}


def small_config(store: Path | str, **changes: Any) -> RunConfig:
    """Return `SMALL` with changes merged in, on a store."""
    return parse(merge(SMALL, changes | {"store": str(store)}))


@contextmanager
def silent(*_: Any) -> Iterator[Callable[[object], None]]:
    """Show nothing."""
    yield lambda _: None


def wait_for(condition: Callable[[], object], seconds: float = 300, pause: float = 0.002) -> None:
    """Poll until the condition holds; the limit is generous, for busy machines."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(pause)
