"""What is not public in Ray, as seen in 2.60. Importing this module imports no Ray."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import Logger
from pathlib import Path
from typing import Any


def bootstrap_address(address: str) -> str:
    """HOST:PORT of the cluster that `address`, which may be `auto`, stands for.

    Ray's own start does the same, after which it tries a dead address for a quarter of an hour.

    Raises:
        ConnectionError: `auto` finds none.
        OSError, ValueError: the address is not known.
    """
    from ray._private import services

    return str(services.canonicalize_bootstrap_address(address))


def ask_for_nodes(address: str, seconds: float) -> None:
    """Ask the cluster at HOST:PORT for its nodes; public calls wait far longer for an answer.

    Raises:
        grpc.RpcError: there was none, or it refuses us.
    """
    from ray._private.gcs_utils import create_gcs_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    with create_gcs_channel(address) as channel:
        asked = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        request = gcs_service_pb2.GetAllNodeInfoRequest()
        asked.GetAllNodeInfo(request, timeout=seconds, wait_for_ready=True)


def find_node_of_this_host(address: str, seconds: float) -> None:
    """Look for a node of the cluster on this host, as a driver does when it connects.

    Raises:
        RuntimeError: there is none.
    """
    import ray
    from ray._private import services

    client = ray._raylet.GcsClient(address=address)
    services.get_node_to_connect_for_driver(client, timeout_seconds=seconds)


@contextmanager
def on_loopback() -> Iterator[None]:
    """Have the session that is started inside take the address 127.0.0.1 and listen there alone.

    By itself Ray listens at all addresses, and replaces that one by another of this machine's. Its
    only switch against it is the one for systems where it has no clusters.
    """
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def printing_lines(wanted: Callable[[list[str]], bool]) -> Iterator[None]:
    """Print of the lines that workers and agents send to the driver only those that are `wanted`;
    Ray's own switch is all or nothing."""
    from ray._private import worker

    show = worker.print_to_stdstream

    def filtered(data: dict[str, Any], **options: Any) -> None:
        if wanted(data["lines"]):
            show(data, **options)

    worker.print_to_stdstream = filtered
    try:
        yield
    finally:
        worker.print_to_stdstream = show


def node_of_this_session() -> Any:
    """What knows the processes of the session that this process has started: with
    `live_processes()` and `dead_processes()`. Ray itself does not say which of them has died."""
    import ray

    return ray._private.worker._global_node


def put_mark(name: bytes) -> None:
    """Leave a mark in the cluster's key-value store, which needs no worker's main thread."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(name, b"1")


def has_mark(name: bytes) -> bool:
    """Whether a mark is there."""
    from ray.experimental import internal_kv

    return bool(internal_kv._internal_kv_exists(name))


def walk_package(
    folder: Path,
    excludes: list[str],
    stays: Callable[[Path, bool], bool],
    add: Callable[[Path], None],
    *,
    gitignore: bool,
    log: Logger,
) -> None:
    """Walk a folder as Ray does when it packs it, so that what is counted is what it packs.

    `stays(path, excluded)` says whether a path is left out, and whatever is below it.
    """
    from ray._private.runtime_env import packaging

    match = packaging._get_excludes(folder, excludes)
    packaging._dir_travel(
        folder,
        [lambda path: stays(path, bool(match(path)))],
        add,
        include_gitignore=gitignore,
        logger=log,
    )


def largest_package() -> int:
    """Bytes of the largest folder that Ray sends along with a job."""
    from ray._private.runtime_env import packaging

    return int(packaging.GCS_STORAGE_MAX_SIZE)


def torch_backend() -> Any:
    """The class that starts a process group on Ray Train's workers: only a subclass of it can do
    something on each of them before."""
    from ray.train.torch.config import _TorchBackend

    return _TorchBackend


def execution_callback() -> Any:
    """The class whose `before_execution_starts` Ray Data calls when it has asked for workers."""
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    return ExecutionCallback


def job_client(seconds: Callable[[str], tuple[float, float]]) -> Any:
    """The class of Ray's job client, which by itself waits for an answer for ever.

    `seconds` are those to connect and to answer, by the HTTP method of the request.
    """
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, timeout=seconds(method), **options)

    return Client
