"""RAY_ADDRESS: which cluster it names, and whether that cluster answers."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from knife.compat.ray import ask_for_nodes, bootstrap_address, find_node_of_this_host
from knife.core.errors import UserError, raise_errors

VARIABLE = "RAY_ADDRESS"
# By default, Ray retries a dead address for a quarter of an hour.
_ANSWER_SECONDS = 8
# A node may still be starting.
_NODE_SECONDS = 8
_HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]@]+):([0-9]{1,5})")
_ADVICE = (
    "give HOST:PORT of a running cluster's head, as `ray start --head` prints it, or unset it to "
    "work on this machine alone"
)


def cluster_address() -> str | None:
    """Return the cluster that RAY_ADDRESS names, HOST:PORT or `auto`.

    If it is unset, blank or `local`, returns None: a session on this machine alone.
    """
    address = os.environ.get(VARIABLE, "").strip()
    word = address.lower()
    if word in ("", "local"):
        return None
    return word if word == "auto" else address


def session_is_up() -> bool:
    """Whether this process has a Ray session; does not import Ray."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


@contextmanager
def one_meaning() -> Iterator[None]:
    """Make Ray, and all processes started inside, interpret RAY_ADDRESS as we do."""
    address, before = cluster_address(), os.environ.pop(VARIABLE, None)
    if address:
        os.environ[VARIABLE] = address
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def address_errors() -> list[str]:
    """Return what is wrong with the form of RAY_ADDRESS, without connecting."""
    address = cluster_address()
    if address in (None, "auto"):
        return []
    # Messages must not reveal a password.
    hidden, at, host = address.rpartition("@")
    shown = f"{'***' if hidden else ''}{at}{host}"
    scheme, separator, _ = address.partition("://")
    if separator and scheme == "ray":
        return [
            f"{VARIABLE}: {shown} is an address for Ray Client, which cannot run this; on a host "
            f"of the cluster, set {VARIABLE} to HOST:PORT of its head or to auto; from elsewhere, "
            "use `knife submit --address http://HOST:8265`"
        ]
    if separator and scheme in ("http", "https"):
        return [
            f"{VARIABLE}: {shown} is the address of a dashboard; use `knife submit --address`, or "
            f"on a host of the cluster, set {VARIABLE} to HOST:PORT of its head or to auto"
        ]
    found = _HOST_AND_PORT.fullmatch(address)
    if found and 0 < int(found[2]) < 65536:
        return []
    return [
        f"{VARIABLE}: must be HOST:PORT of a cluster's head, such as 10.0.0.1:6379 or "
        f"[fd00::1]:6379, or auto, but got {shown!r}; unset it to work on this machine alone"
    ]


def refuse_dead_cluster() -> None:
    """Check that the cluster at RAY_ADDRESS answers and has a node on this host.

    Does nothing if a session is already up, or no cluster is named.

    Raises:
        UserError: within half a minute, if either check fails.
    """
    if session_is_up() or not (address := cluster_address()):
        return
    raise_errors(address_errors())
    with one_meaning():
        try:
            found = bootstrap_address(address)
        except ConnectionError as error:
            raise UserError(
                f"{VARIABLE}: auto finds no Ray cluster on this host; {_ADVICE}"
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(
                f"{VARIABLE}: {address} cannot be resolved: {error}; {_ADVICE}"
            ) from error
    if _answers(address, found):
        _refuse_strange_host(address, found)


def _answers(address: str, found: str) -> bool:
    """Whether a cluster accepts us; False if Ray has to find its token first."""
    import grpc

    where = f"auto ({found})" if address == "auto" else address
    try:
        ask_for_nodes(found, _ANSWER_SECONDS)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAUTHENTICATED:
            raise UserError(
                f"{VARIABLE}: no Ray cluster answers at {where} within {_ANSWER_SECONDS} s; "
                f"{_ADVICE}"
            ) from error
        # If the address is auto, Ray looks for one by itself.
        if address == "auto":
            return False
        raise UserError(token_error(where)) from error
    return True


def token_error(where: str) -> str:
    """Return the error for a cluster that requires another token, and what to do."""
    return (
        f"{VARIABLE}: the Ray cluster at {where} requires a token that it did not get: set "
        "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH (else ~/.ray/auth_token is "
        "read) to the token of the cluster"
    )


def _refuse_strange_host(address: str, found: str) -> None:
    """Raise `UserError` if this host has no node of the cluster, which a driver needs."""
    try:
        find_node_of_this_host(found, _NODE_SECONDS)
    except RuntimeError as error:
        raise UserError(
            f"{VARIABLE}: the Ray cluster at {address} has no node on this host; start one here "
            f"with `ray start --address={found}`, or use `knife submit --address http://HOST:8265`"
        ) from error
