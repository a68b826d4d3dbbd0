"""Private parts of Ray, as of version 2.60. Importing this module does not import Ray."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from logging import Logger
from pathlib import Path
from typing import Any

from knife.compat.replaced import replaced


def bootstrap_address(address: str) -> str:
    """Resolve `address`, which may be `auto`, to HOST:PORT of a cluster.

    `ray.init` does the same, but then retries a dead address for a quarter of an hour.

    Raises:
        ConnectionError: `auto` finds no cluster.
        OSError, ValueError: the address cannot be resolved.
    """
    from ray._private import services

    return str(services.canonicalize_bootstrap_address(address))


def ask_for_nodes(address: str, seconds: float) -> None:
    """Query the nodes of the cluster at HOST:PORT; public calls wait far longer for an answer.

    Raises:
        grpc.RpcError: there was no answer within `seconds`, or access was denied.
    """
    from ray._private.gcs_utils import create_gcs_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    with create_gcs_channel(address) as channel:
        asked = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        request = gcs_service_pb2.GetAllNodeInfoRequest()
        asked.GetAllNodeInfo(request, timeout=seconds, wait_for_ready=True)


def find_node_of_this_host(address: str, seconds: float) -> None:
    """Find a node of the cluster on this host, as a driver does when it connects.

    Raises:
        RuntimeError: there is none.
    """
    import ray
    from ray._private import services

    client = ray._raylet.GcsClient(address=address)
    services.get_node_to_connect_for_driver(client, timeout_seconds=seconds)


def on_loopback() -> AbstractContextManager[None]:
    """Make a session that is started inside use the address 127.0.0.1 and listen only there.

    By default, Ray listens at all addresses, and replaces 127.0.0.1 with another address of this
    machine. The only switch against it is meant for systems where Ray does not support clusters.
    """
    from ray._private import ray_constants

    return replaced(ray_constants, "ENABLE_RAY_CLUSTER", False)


def printing_lines(wanted: Callable[[list[str]], bool]) -> AbstractContextManager[None]:
    """Print only those `wanted` of the lines that workers and agents send to the driver; Ray's own
    switch is all or nothing."""
    from ray._private import worker

    show = worker.print_to_stdstream

    def filtered(data: dict[str, Any], **options: Any) -> None:
        if wanted(data["lines"]):
            show(data, **options)

    return replaced(worker, "print_to_stdstream", filtered)


def node_of_this_session() -> Any:
    """Return the node of the Ray session that this process started. Its `live_processes()` and
    `dead_processes()` show which of its processes died, which the public API does not."""
    import ray

    return ray._private.worker._global_node


def put_mark(name: bytes) -> None:
    """Put a mark into the cluster's key-value store, which needs no worker's main thread."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(name, b"1")


def has_mark(name: bytes) -> bool:
    """Whether a mark is in the cluster's key-value store."""
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
    """Walk a folder as Ray does when it packs it, so that exactly the packed files are counted.

    `stays(path, excluded)` is whether to leave out a path and everything below it.
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


def torch_backend() -> Any:
    """Return the class that starts a process group on Ray Train's workers; only a subclass can run
    code on each worker before that."""
    from ray.train.torch.config import _TorchBackend

    return _TorchBackend


def trainer_in_this_actor() -> Any:
    """Return a `TorchTrainer` whose `fit` runs its controller in the actor that calls it, and
    starts none of the processes that only data sets, metrics and crashed controllers need.

    Ray's own starts a controller and three helpers for every worker group, a GB in all.
    """
    from ray.train.torch import TorchTrainer
    from ray.train.v2._internal.execution.controller.controller import TrainController

    needed = ("AcceleratorSetupCallback", "BackendSetupCallback", "UserCallbackHandler")

    class Trainer(TorchTrainer):  # type: ignore[misc]
        def _create_default_callbacks(self) -> list[Any]:
            found = super()._create_default_callbacks()
            return [callback for callback in found if type(callback).__name__ in needed]

        def _initialize_and_run_controller(self, **arguments: Any) -> Any:
            controller = TrainController(**arguments)
            asyncio.run(controller.run())
            return controller.get_result()

    return Trainer


def prepare_trainers() -> None:
    """Let trainers run in several threads of this process.

    Each configures Ray Train's log as it starts, which closes the handlers of the others: one that
    writes to a handler at that moment waits for logging's own lock, and the other for the handler,
    for ever. The log stays as it is instead.
    """
    from ray.train.v2._internal.logging.logging import LoggingManager

    LoggingManager.configure_controller_logger = staticmethod(lambda *_: None)


def worker_was_killed(error: BaseException) -> bool:
    """Whether the failure of a worker of Ray Train is the death of its process."""
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    return isinstance(error, WorkerHealthCheckFailedError)


def execution_callback() -> Any:
    """Return the class whose `before_execution_starts` Ray Data calls after requesting workers."""
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    return ExecutionCallback


def job_client(seconds: Callable[[str], tuple[float, float]]) -> Any:
    """Return a job client class with timeouts; Ray's own waits forever for an answer.

    `seconds` returns the timeouts to connect and to answer, for the HTTP method of a request.
    """
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, timeout=seconds(method), **options)

    return Client
