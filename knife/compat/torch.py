"""Private parts of torch, as of version 2.13."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def set_rendezvous_store(store: Callable[..., Any]) -> None:
    """Make workers rendezvous through our own `TCPStore`: torch's listens at all addresses of its
    host, and `init_process_group` cannot pass it a socket."""
    # Imported by name, since `torch.distributed.rendezvous` as an attribute is a function.
    rendezvous: Any = import_module("torch.distributed.rendezvous")
    rendezvous.TCPStore = store


def compilers() -> list[str]:
    """Return the C++ compilers that `torch.compile` looks for: CXX, or else g++."""
    from torch._inductor import config

    names = config.cpp.cxx if isinstance(config.cpp.cxx, tuple | list) else (config.cpp.cxx,)
    return [name for name in names if name]
