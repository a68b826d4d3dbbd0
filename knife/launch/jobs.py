"""Ray jobs: find a cluster's dashboard, start a job, follow its log to the end, stop it."""

import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError

from knife.compat.ray import job_client
from knife.core.errors import UserError
from knife.core.exits import say
from knife.launch.working_dir import WorkingDir

_CONNECT_SECONDS, _ANSWER_SECONDS, _UPLOAD_SECONDS = 5, 20, 300
# How long a cluster may take to start: its dashboard to answer, and then to find an agent for jobs.
_START_SECONDS = 60.0
# A dashboard that restarts, or a brief network failure, does not mean the end of a job.
_LOST_SECONDS = 60.0
# What Ray's client raises if a cluster does not answer.
_LOST = (OSError, RuntimeError)
# Ray would prefer these to the address passed to it.
_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
# These log every package and every ignore file.
_LOUD = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
    "ray._private.runtime_env.working_dir",
)


def _seconds(method: str) -> tuple[float, float]:
    """Return the time limits to connect and to answer a request with an HTTP method."""
    return _CONNECT_SECONDS, _ANSWER_SECONDS if method == "GET" else _UPLOAD_SECONDS


@dataclass
class JobLog:
    """How much of a job's log was shown."""

    show: Callable[[str], None]
    shown: int = 0

    def add(self, text: str) -> None:
        """Show what is new in the log, given all of it."""
        if len(text) > self.shown:
            # Before it is shown: a reader may answer what it sees with Ctrl-C.
            new, self.shown = text[self.shown :], len(text)
            self.show(new)


@dataclass(frozen=True)
class JobEnd:
    """How a job ended.

    Attributes:
        state: succeeded, failed or stopped.
        status: the exit status of its command; None if Ray has none.
        message: Ray's message on a job whose command did not exit by itself.
    """

    state: str
    status: int | None
    message: str


class Jobs:
    """The jobs of a cluster.

    Attributes:
        address: the dashboard's address, without a password.
    """

    def __init__(self, address: str) -> None:
        """Connect to the dashboard and check that it is one. Where none answers it waits up to a
        minute for a cluster that is just starting, and says so.

        Raises:
            UserError: no Ray dashboard answers, or it wants another token.
        """
        url, self.address = _checked(address)
        for name in _LOUD:
            logging.getLogger(name).setLevel(logging.ERROR)
        with _as_asked(self.address):
            self._client = _once_started(
                lambda: job_client(_seconds)(url),
                _is_silent,
                f"{self.address} does not answer; trying again for up to {_START_SECONDS:.0f} s …",
            )

    def submit(
        self, job: str, words: Sequence[str], folder: WorkingDir, environment: dict[str, str]
    ) -> None:
        """Send the folder and start a command in it, under the new id `job`. For a cluster that is
        just starting it waits up to a minute, and says so.

        Raises:
            RuntimeError, OSError: the cluster refuses the job, or is gone.
        """
        runtime: dict[str, Any] = {"working_dir": str(folder.folder)}
        runtime["excludes"] = list(folder.excludes)
        if environment:
            runtime["env_vars"] = environment
        _once_started(
            lambda: self._client.submit_job(
                entrypoint=shlex.join(words), submission_id=job, runtime_env=runtime
            ),
            # On a new cluster the dashboard answers before it can start jobs.
            lambda error: "No available agent" in str(error),
            "the cluster is still starting; waiting until it can start jobs …",
        )

    def follow(self, job: str, log: JobLog) -> JobEnd:
        """Show the log as it grows, until the job has ended.

        Raises:
            ConnectionError: the cluster has not answered for a minute.
        """
        answered = time.monotonic()
        while True:
            asked = time.monotonic()
            try:
                info = self._client.get_job_info(job)
                log.add(self._client.get_job_logs(job))
                answered = time.monotonic()
                if info.status.is_terminal():
                    message = info.message if info.driver_exit_code is None else ""
                    return JobEnd(info.status.lower(), info.driver_exit_code, message or "")
            except _LOST as error:
                if time.monotonic() - answered > _LOST_SECONDS:
                    raise ConnectionError(f"the cluster no longer answers: {error}") from error
            # The whole log comes each time: the longer that takes, the longer the pause.
            time.sleep(max(1.0, 10 * (answered - asked)))

    def stop(self, job: str) -> None:
        """Have Ray end a job: SIGTERM, then SIGKILL after some seconds."""
        self._client.stop_job(job)


def _checked(address: str) -> tuple[str, str]:
    """Return the dashboard's address, with and without user and password."""
    url = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UserError(
            "--address: must be the address of a Ray dashboard, such as http://HOST:8265, but got "
            f"{url.rpartition('@')[2] if '@' in url else address!r}"
        )
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    whole = bare._replace(netloc=parts.netloc)
    return whole.geturl().rstrip("/"), bare.geturl().rstrip("/")


def _once_started(ask: Callable[[], Any], starting: Callable[[Exception], bool], why: str) -> Any:
    """Return what `ask` returns, and ask again while it fails as `starting` says that a cluster
    does which is not up yet: for up to a minute. `why` it waits is said once."""
    end, said = time.monotonic() + _START_SECONDS, False
    while True:
        try:
            return ask()
        except Exception as error:
            if not starting(error) or time.monotonic() >= end:
                raise
        if not said:
            say(why)
            said = True
        time.sleep(1)


def _is_silent(error: Exception) -> bool:
    return isinstance(error, ConnectionError) or "Timeout" in type(error).__name__


@contextmanager
def _as_asked(address: str) -> Iterator[None]:
    """Use Ray's client with the given address only, and turn its errors into user errors."""
    kept = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        yield
    except AuthenticationError as error:
        raise UserError(
            f"--address: {address} requires a token that it did not get: set RAY_AUTH_MODE=token, "
            "and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH (else ~/.ray/auth_token is read) to the "
            "token of the cluster"
        ) from error
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        # The error's text may contain the address with its password.
        what = "does not answer" if _is_silent(error) else "is not a Ray dashboard"
        raise UserError(
            f"--address: {address} {what}; give the address at which the cluster's dashboard is "
            "reached from here (`ray start --head` has it on port 8265 of the head)"
        ) from error
    finally:
        os.environ.update(kept)
