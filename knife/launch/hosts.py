"""Workers on several hosts: which network they use, and whether they share the store."""

import os
import socket
import time
from pathlib import Path

import psutil
import ray
from ray.train.torch import TorchConfig

from knife.compat.ray import torch_backend
from knife.launch.listening import listen_at_one_address
from knife.train.context import gather
from knife.train.stop import listen

# An NFS client may serve a cached listing of a folder for this many seconds.
_SEEN_SECONDS = 10


class HostsTorchConfig(TorchConfig):  # type: ignore[misc]
    """A process group over the network that Ray uses, with workers that checkpoint on SIGTERM."""

    @property
    def backend_cls(self) -> type:
        """The class that sets it up."""
        return _HostsBackend


class _HostsBackend(torch_backend()):  # type: ignore[misc]
    def on_start(self, worker_group: "ray.train.WorkerGroup", backend_config: TorchConfig) -> None:
        # This runs in each worker's main thread, which signal handlers require.
        worker_group.execute(_prepare)
        super().on_start(worker_group, backend_config)


def _prepare() -> None:
    listen()
    use_network_of_ray()
    listen_at_one_address()


def use_network_of_ray() -> None:
    """Make gloo and NCCL use the network interface that has Ray's address of this host.

    By default they take the one that the host's name resolves to, or the first one: on many hosts
    loopback or a container network. What the user has set is kept.
    """
    interface = interface_of(ray.util.get_node_ip_address())
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        # NCCL treats the name as a prefix unless "=" marks it as exact.
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")


def interface_of(address: str) -> str | None:
    """Return the network interface of this host that has an address, or None, as behind NAT."""
    for interface, found in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in found):
            return interface
    return None


def store_errors_of_hosts(mark: Path) -> list[str]:
    """Return an error if the store is not the same on all hosts; a collective call.

    Args:
        mark: a file that the driver has just created in its store.
    """
    own = (f"{socket.gethostname()} ({ray.util.get_node_ip_address()})", _seen(mark))
    blind = sorted({host for host, seen in gather(own) if not seen})
    if not blind:
        return []
    store = mark.parents[1]
    return [
        f"store: {store} on {', '.join(blind)} is not the folder that the run was started with; "
        "give a folder that all hosts mount at this path, or a bucket"
    ]


def _seen(path: Path) -> bool:
    """Whether a new file is visible, or becomes so within `_SEEN_SECONDS`."""
    end = time.monotonic() + _SEEN_SECONDS
    while not path.is_file():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
