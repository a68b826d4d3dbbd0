"""Opening MLflow: one attempt of a few seconds, and a plain message if it fails."""

import errno
import hashlib
import logging
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from ssl import SSLCertVerificationError
from urllib.parse import quote

import filelock
import mlflow
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from requests.exceptions import ChunkedEncodingError, RetryError, SSLError, Timeout
from requests.exceptions import ConnectionError as RequestsConnectionError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from knife.core.environment import variables
from knife.core.errors import UserError
from knife.core.version import __version__
from knife.core.words import command_line
from knife.track.address import Address, sqlite_path
from knife.track.secrets import redact

SECONDS = 10
# The first major version of MLflow that has logged models.
OLDEST = 3
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
DATABASES = tuple(PORTS)
# Anything that MLflow, its database driver or the network raises.
FAILURES = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError, ValueError)
# RetryError: too many responses with status 429, 500, 502, 503 or 504.
_AWAY = (
    *(ConnectionError, TimeoutError),
    *(RequestsConnectionError, Timeout, RetryError, ChunkedEncodingError),
)
_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)
_SETTINGS = threading.RLock()
# Describes an experiment that is created here; later edits by users are kept.
_ABOUT = {
    "knife.version": __version__,
    # Decides which of MLflow's views opens from the list of experiments.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": """Students that learn from rationales, compared with plain finetuning.

- **Runs that fold**: a run has its verdict in its description, and nested runs for the teacher and
  for each method and seed; a sweep has its trials, and each trial its seeds.
- **Which student?** Tag `knife.champion` of a run; column `test_accuracy`; the tab Models.
- **Curves**: `epoch/train_loss`, `epoch/dev_loss` and `epoch/dev_accuracy` share one axis, the
  epochs; `train/…` has the details by optimizer step.
- **Did it help?** `gain_points.METHOD` and `p.METHOD` of a run; `report.html` among its artifacts.

Accuracies are shares from 0 to 1, losses nats an example.
""",
}


class AwayError(Exception):
    """MLflow does not answer at the moment, but may recover without action by the user."""


def connect(address: Address, store: Path, experiment: str) -> tuple[MlflowClient, str]:
    """Open MLflow and find or create the experiment.

    Args:
        address: MLflow's address.
        store: the artifact store; its folder `mlartifacts` takes the artifacts of an experiment
            that is created in a database (a server decides for itself).
        experiment: the experiment's name.

    Returns:
        The client, and the experiment's id.

    Raises:
        AwayError: MLflow does not answer; raised within seconds.
        UserError: MLflow cannot be used as it is; raised within seconds.
    """
    _quiet()
    uri, store = address.uri, store.absolute()
    try:
        store.mkdir(parents=True, exist_ok=True)
        # Two processes that open the same new SQLite file break each other's migrations.
        with filelock.FileLock(store / "mlflow.lock", timeout=60), one_try():
            probe(uri)
            _refuse_old(address)
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            found = _experiment(client, experiment, _artifacts(uri, store))
    except filelock.Timeout as error:
        raise UserError(
            f"{address.where}: another process has held {store / 'mlflow.lock'} for a minute; "
            "end it, or wait until it has opened MLflow"
        ) from error
    except FAILURES as error:
        if is_away(error) and not uri.startswith("sqlite:"):
            raise AwayError(reason(error)) from error
        raise unusable(address, error) from error
    if found is None:
        raise UserError(
            f"track.experiment: {experiment!r} was deleted in MLflow; restore it there "
            "(mlflow experiments restore), or choose another name"
        )
    return client, found


def unusable(address: Address, error: Exception) -> UserError:
    """Return an error that says why MLflow cannot be used as it is, and what to do."""
    where, shown = address.where, address.shown
    if "database schema" in str(error):
        return UserError(
            f"{where}: the tables of {shown} are those of another version of MLflow than "
            f"{mlflow.__version__}; where they are older, keep a copy of them, and: "
            f"{command_line('mlflow', 'db', 'upgrade', shown)}; where they are newer, update mlflow"
        )
    return UserError(
        f"{where}: MLflow at {shown} cannot be used: {reason(error)}; {_advice(address.uri)}"
    )


def is_away(error: BaseException | None) -> bool:
    """Whether an error means that MLflow does not answer, or is temporarily unavailable (5xx).

    An unknown host name or an invalid certificate does not resolve itself.
    """
    found = False
    while error:
        if isinstance(error, SSLError | SSLCertVerificationError):
            return False
        if isinstance(error, socket.gaierror):
            return error.errno == socket.EAI_AGAIN
        found = found or isinstance(error, _AWAY)
        found = found or (isinstance(error, OSError) and error.errno in _UNREACHABLE)
        error = error.__cause__ or error.__context__
    return found


def reason(error: BaseException, beyond: BaseException | None = None) -> str:
    """Return the root cause of an error in one line, without passwords.

    `beyond` is an exception that was already being handled; it is not taken as a cause.
    """
    # A KeyError deep in MLflow says less than the error that MLflow turned it into.
    while inner := error.__cause__ or error.__context__:
        if inner is beyond or isinstance(inner, KeyError):
            break
        error = inner
    text = " ".join(str(error).split()) or type(error).__name__
    return redact(text if len(text) <= 300 else text[:299] + "…")


def probe(uri: str) -> None:
    """Fail at once if MLflow would retry for a minute and a half, or print too much."""
    if uri.startswith("file:") or not ("://" in uri or uri == "databricks"):
        raise ValueError("it is a folder, and MLflow has given up keeping runs in folders")
    if uri.startswith("sqlite:"):
        path = sqlite_path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = sqlite3.connect(path, timeout=SECONDS)
        try:
            # Take and release the write lock: fails for a file that is not a database, is
            # read-only, or is locked by another process.
            file.execute("BEGIN IMMEDIATE")
            file.execute("ROLLBACK")
        finally:
            file.close()
    elif uri.startswith(DATABASES):
        url = make_url(uri)
        engine = sqlalchemy.create_engine(url)
        if url.host:
            port = url.port or PORTS[url.get_backend_name()]
            socket.create_connection((url.host, port), timeout=SECONDS).close()
        with engine.connect():
            pass
        engine.dispose()


def _refuse_old(address: Address) -> None:
    """Refuse a server that has no logged models; one that hides its version is accepted.

    Raises:
        UserError: its version is older than 3.
    """
    if not address.uri.startswith(("http:", "https:")):
        return
    # Sent as MLflow sends all its requests: with its credentials, certificates and headers.
    answer = http_request(get_default_host_creds(address.uri), "/version", "GET")
    found = re.match(r"(\d+)\.\d+", answer.text.strip()) if answer.ok else None
    if found and int(found[1]) < OLDEST:
        version = answer.text.strip()[:20]
        raise UserError(
            f"{address.where}: MLflow at {address.shown} is version {version}, but "
            f"must be {OLDEST} or newer, which keeps students as models; update the server, or "
            "leave track.uri null to record in the store"
        )


@contextmanager
def one_try() -> Iterator[None]:
    """Limit MLflow to one request of a few seconds per call, to find out whether it answers."""
    names = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(SECONDS),
    }
    # MLflow reads these process-wide settings again for each request.
    with _SETTINGS, variables(names):
        yield


def _experiment(client: MlflowClient, name: str, artifacts: Path | None) -> str | None:
    """Return the experiment's id, creating it if it is missing; None if it was deleted."""
    found = client.get_experiment_by_name(name)
    if found is None:
        # One folder per experiment, never MLflow's default of ./mlruns in the current folder.
        place = (artifacts / _folder(name)).as_uri() if artifacts else None
        try:
            return str(client.create_experiment(name, artifact_location=place, tags=_ABOUT))
        except MlflowException:
            # Another process may have created it in the meantime.
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id) if found.lifecycle_stage == "active" else None


def _folder(name: str) -> str:
    """Return a folder name for an experiment: file systems allow 255 bytes."""
    quoted = quote(name, safe=" ")
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return quoted if len(quoted) <= 200 else f"{quoted[:180]}-{digest}"


def _artifacts(uri: str, store: Path) -> Path | None:
    """Return where a database without a server has its artifacts: next to a SQLite file, or in the
    store."""
    if uri.startswith("sqlite:"):
        return sqlite_path(uri).parent / "mlartifacts"
    return store / "mlartifacts" if uri.startswith(DATABASES) else None


def _advice(uri: str) -> str:
    if uri.startswith("sqlite:"):
        return "it must be a SQLite file (new, or MLflow's own) that can be written"
    if uri.startswith(DATABASES):
        return "start the database, correct the address, or install its Python driver"
    if uri.startswith(("http:", "https:")):
        return (
            "start the server, correct the address or the credentials "
            "(MLFLOW_TRACKING_USERNAME, …_PASSWORD), or leave track.uri null to record in the store"
        )
    return "it must be http(s)://HOST:PORT, sqlite:///FILE or the address of another database"


class _Redact(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        return True


def _quiet() -> None:
    """Silence what we report ourselves, and keep passwords out of the rest."""
    # These log a traceback for every failed statement, and a line for every retried request.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    # This logs a line for each model that is written.
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    for handler in logging.getLogger("mlflow").handlers:
        if not any(isinstance(known, _Redact) for known in handler.filters):
            handler.addFilter(_Redact())
