"""Which network workers use and whether their hosts share a store; tests/faults has real hosts."""

import os
import socket
from pathlib import Path

import psutil
import pytest

from knife.launch import hosts
from knife.launch.hosts import interface_of, store_errors_of_hosts, use_network_of_ray


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None
    for name, found in psutil.net_if_addrs().items():
        for entry in found:
            if entry.family == socket.AF_INET:
                assert interface_of(entry.address) == name


def test_the_network_of_ray_is_used_unless_the_user_says_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    use_network_of_ray()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    assert os.environ["NCCL_SOCKET_IFNAME"] == "ib0"


def test_a_store_that_a_host_does_not_see_is_a_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "_SEEN_SECONDS", 0)
    mark = tmp_path / "store" / "work" / "ray-1.mark"
    (error,) = store_errors_of_hosts(mark)
    assert error.startswith(f"store: {tmp_path / 'store'} on {socket.gethostname()} (")
    mark.parent.mkdir(parents=True)
    mark.touch()
    assert store_errors_of_hosts(mark) == []
