"""The address of MLflow: from the config, from the environment, or in the store."""

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import make_url

from knife.core.errors import UserError
from knife.track.secrets import redact

VARIABLE = "MLFLOW_TRACKING_URI"


@dataclass(frozen=True, slots=True)
class Address:
    """A tracking URI.

    Attributes:
        uri: the whole URI with its password, never to be shown or written.
        where: the setting that it comes from: `track.uri`, `MLFLOW_TRACKING_URI` or `store`.
    """

    uri: str
    where: str

    @property
    def shown(self) -> str:
        """The URI without its password."""
        return redact(self.uri)


def resolve(uri: str | None, store: Path) -> Address:
    """Return the address that a run's `track.uri` means, with a SQLite path made absolute.

    Args:
        uri: a server or a SQLAlchemy database; None is MLFLOW_TRACKING_URI, or else the file
            `mlflow.db` in `store`.
        store: the artifact store.
    """
    where = "track.uri"
    if uri is None:
        uri, where = os.environ.get(VARIABLE) or None, VARIABLE
    if uri is None:
        return in_store(store)
    if uri.startswith("sqlite:///") and "?" not in uri:
        uri = _sqlite(sqlite_path(uri).absolute())
    return Address(uri, where)


def resolve_kept(shown: str, where: str, store: Path) -> Address:
    """Return the address of an earlier run, from its `shown` and `where`.

    Passwords are not kept. A URI that came from the environment is read from there again.

    Raises:
        UserError: the address had a password and the environment does not give it.
    """
    if where == "store":
        return in_store(store)
    now = os.environ.get(VARIABLE)
    if now and (where == VARIABLE or redact(now) == shown):
        return resolve(None, store)
    if "***" not in shown:
        return Address(shown, where)
    if "MLFLOW_TRACKING_USERNAME" in os.environ and "://***@" in shown:
        return Address(shown.replace("://***@", "://", 1), where)
    raise UserError(
        f"{where}: the password of {shown} is not kept on disk; give the whole address in "
        f"{VARIABLE}, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    )


def sqlite_path(uri: str) -> Path:
    """Return the file of a SQLite URI."""
    return Path(make_url(uri).database or "")


def in_store(store: Path, where: str = "store") -> Address:
    """Return the address of the database in a store, which the setting `where` names."""
    return Address(_sqlite(store.absolute() / "mlflow.db"), where)


def _sqlite(path: Path) -> str:
    # SQLAlchemy decodes %xx and cuts at "?"; it takes every other character literally.
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"
