"""Torch's store, through which workers find each other, listening on one address of its host."""

import errno
import socket
from typing import Any

import torch.distributed as dist

from knife.compat.torch import set_rendezvous_store


def listen_at_one_address() -> None:
    """Make this worker's store listen only where the others connect to it: torch listens on all of
    the host's addresses, without authentication."""
    set_rendezvous_store(_store)


def _store(host_name: str, port: int, world_size: int, is_master: bool, **options: Any) -> Any:
    """Return torch's own store, on a socket opened here if this process serves it."""
    if is_master:
        family = socket.AF_INET6 if ":" in host_name else socket.AF_INET
        try:
            server = socket.create_server((host_name, port), family=family)
        except OSError as error:
            # Ray has an address that this host itself does not have: it is behind NAT.
            if error.errno != errno.EADDRNOTAVAIL:
                raise
        else:
            options["master_listen_fd"] = server.detach()
    made: Any = dist.TCPStore  # type: ignore[attr-defined]
    return made(host_name, port, world_size, is_master, **options)
