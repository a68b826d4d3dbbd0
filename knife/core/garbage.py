"""Pauses Python's search for cyclic garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_search_for_cycles() -> Iterator[None]:
    """Search for no cyclic garbage meanwhile.

    Where millions of small objects come and go without cycles, as tokens of examples do, the
    searches would take longer than the work itself: each looks at all objects of torch as well.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()
