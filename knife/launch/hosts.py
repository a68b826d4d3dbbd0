"""Workers on several hosts: which network they talk over, and whether they share the store."""

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

# An NFS client may look at what it knew of a folder for so many seconds.
_SEEN_SECONDS = 10


class HostsTorchConfig(TorchConfig):  # type: ignore[misc]
    """A process group over the network that Ray uses, of workers that checkpoint at SIGTERM."""

    @property
    def backend_cls(self) -> type:
        """What brings it up."""
        return _HostsBackend


class _HostsBackend(torch_backend()):  # type: ignore[misc]
    def on_start(self, worker_group: "ray.train.WorkerGroup", backend_config: TorchConfig) -> None:
        # In the main thread of each worker, as handlers of signals need it.
        worker_group.execute(_prepare)
        super().on_start(worker_group, backend_config)


def _prepare() -> None:
    listen()
    use_network_of_ray()
    listen_at_one_address()


def use_network_of_ray() -> None:
    """Let gloo and NCCL use the interface that has Ray's address of this host.

    By themselves they take the one that the host's name leads to, or the first: on many hosts a
    loopback or a network of containers. What the user has set stays.
    """
    interface = interface_of(ray.util.get_node_ip_address())
    if interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        # NCCL takes a name as the beginning of one, unless told that it is whole.
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")


def interface_of(address: str) -> str | None:
    """The network interface of this host that has an address; None: none of them, as behind NAT."""
    for interface, found in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in found):
            return interface
    return None


def store_faults_of_hosts(mark: Path) -> list[str]:
    """Faults of a store that is another one on other hosts; all workers call it together.

    Args:
        mark: a file that the driver has just put into its store.
    """
    own = (f"{socket.gethostname()} ({ray.util.get_node_ip_address()})", _seen(mark))
    blind = sorted({host for host, seen in gather(own) if not seen})
    if not blind:
        return []
    store = mark.parents[1]
    return [
        f"store: {store} is another folder on {', '.join(blind)} than where the run was started; "
        "give a folder that all hosts mount at this path, or a bucket"
    ]


def _seen(path: Path) -> bool:
    """Whether a new file is there, or comes to be seen within some seconds."""
    end = time.monotonic() + _SEEN_SECONDS
    while not path.is_file():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True
