"""A store whose database has MLflow's tables: they take seconds to make, so one is copied."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from knife.store.store import Store
from knife.track.tracker import Tracker


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, nothing else."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Tracker(None, Store(folder), "made", {}).close()
    return folder / "mlflow.db"


@pytest.fixture
def store(mlflow_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An artifact store with a database that is MLflow's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(mlflow_tables, tmp_path / "mlflow.db")
    return Store(tmp_path)


@pytest.fixture
def tracker(store: Store) -> Iterator[Tracker]:
    with Tracker(None, store, "exp", {}) as opened:
        yield opened
