"""Torch's store, by which workers find each other: it listens at one address of its host."""

import errno
import socket
from typing import Any

import torch.distributed as dist

from knife.compat.torch import set_rendezvous_store


def listen_at_one_address() -> None:
    """Have the store of this worker listen where the others look for it: torch takes all of the
    host's addresses, and asks nobody who he is."""
    set_rendezvous_store(_store)


def _store(host_name: str, port: int, world_size: int, is_master: bool, **options: Any) -> Any:
    """Torch's own store, on a socket of ours where this process serves it."""
    if is_master:
        family = socket.AF_INET6 if ":" in host_name else socket.AF_INET
        try:
            server = socket.create_server((host_name, port), family=family)
        except OSError as error:
            # Ray was given an address that this host does not have itself: it is behind NAT.
            if error.errno != errno.EADDRNOTAVAIL:
                raise
        else:
            options["master_listen_fd"] = server.detach()
    made: Any = dist.TCPStore  # type: ignore[attr-defined]
    return made(host_name, port, world_size, is_master, **options)
