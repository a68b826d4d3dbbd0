"""A real S3 server on this machine, with a bucket for each test."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import s3fs
from command_fixtures import free_port
from moto.server import ThreadedMotoServer

_numbers = itertools.count()


@dataclass
class S3:
    """A bucket of the server.

    Attributes:
        url: a store's url in it.
        files: all buckets, as fsspec sees them.
        server: can be stopped and restarted with its contents.
    """

    url: str
    files: s3fs.S3FileSystem
    server: ThreadedMotoServer

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the objects below the url, or below a folder of it."""
        self.files.invalidate_cache()
        root = self.url.removeprefix("s3://")
        found = self.files.find(f"{root}/{folder}") if self.files.exists(root) else []
        return sorted(path.removeprefix(f"{root}/") for path in found)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: ThreadedMotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """Yield an empty bucket, with an environment that points every process to it."""
    host, port = s3_server.get_host_and_port()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    # It keeps the settings from when it was opened.
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    bucket = f"bucket-{next(_numbers)}"
    files.mkdir(bucket)
    yield S3(f"s3://{bucket}/some/stores", files, s3_server)
    s3fs.S3FileSystem.clear_instance_cache()
