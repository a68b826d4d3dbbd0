"""What is not public in torch, as seen in 2.13."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def set_rendezvous_store(store: Callable[..., Any]) -> None:
    """Have workers find each other by a `TCPStore` of ours: torch's own listens at all addresses
    of its host, and takes no socket by `init_process_group`."""
    # By its name: what torch.distributed has under it is a function.
    rendezvous: Any = import_module("torch.distributed.rendezvous")
    rendezvous.TCPStore = store


def compilers() -> list[str]:
    """The C++ compilers that `torch.compile` looks for: CXX, or else g++."""
    from torch._inductor import config

    names = config.cpp.cxx if isinstance(config.cpp.cxx, tuple | list) else (config.cpp.cxx,)
    return [name for name in names if name]
