"""A student as an MLflow model: written, logged with its run's results, registered."""

import json
import shutil
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

from knife.compat.mlflow import newest_metrics
from knife.core import strict_json
from knife.track.connect import one_try

# What answering needs; it does not import ray or deepspeed.
LIBRARIES = ("mlflow", "torch", "transformers", "knife")
WEIGHTS = "artifacts/student"
CHAMPION = "champion"
# Prefixes of the metrics that measure a model's quality.
_RESULTS = ("dev_", "test_")
_SETTINGS = "knife.json"
_QUESTION = {"question": "do frogs lay eggs ?", "choices": ["yes", "no"]}


def log_model(client: MlflowClient, experiment: str, run: str, student: Path, name: str) -> bool:
    """Log a student's folder as a model of a run, with the run's results; False if it was there.

    May be repeated: what a killed driver has left unfinished is finished.
    """
    model = _find(client, experiment, run, name)
    if model and model.status == "READY":
        return False
    if model is None:
        with one_try():
            model = client.create_logged_model(
                experiment, name=name, source_run_id=run, model_type="student"
            )
    client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
    with tempfile.TemporaryDirectory(prefix="knife-model-") as place:
        folder = Path(place) / "model"
        write_model(folder, student, model.model_id, run)
        client.log_model_artifacts(model.model_id, str(folder))
    client.log_model_artifacts(model.model_id, str(student), WEIGHTS)
    # Identical to the run's metrics, so that the run does not get them twice.
    linked = [
        Metric(m.key, m.value, m.timestamp, m.step, model_id=model.model_id, run_id=run)
        for m in _metrics(client, run)
        if m.key.startswith(_RESULTS)
    ]
    client.log_batch(run, metrics=linked)
    client.finalize_logged_model(model.model_id, "READY")
    return True


def register(client: MlflowClient, experiment: str, run: str, name: str, registered: str) -> int:
    """Make a run's logged model a version of a registered model and its champion; return its
    number.

    A model that is already a version keeps it, and the champion never moves to an older version.
    """
    model = _find(client, experiment, run, name)
    if model is None:
        raise FileNotFoundError(f"the model {name} is not in MLflow")
    known = client.search_registered_models(f"name = '{registered}'")
    if not known:
        client.create_registered_model(registered)
    versions = client.search_model_versions(f"name = '{registered}'")
    # Not models:/ID, which a database looks up at the process's own tracking URI.
    version = next((each for each in versions if each.run_id == run), None)
    version = version or client.create_model_version(
        registered,
        model.artifact_location,
        run,
        description=f"{name}: {_results(client, run)}",
        model_id=model.model_id,
    )
    number = int(version.version)
    now = known[0].aliases.get(CHAMPION) if known else None
    if now is None or int(now) < number:
        client.set_registered_model_alias(registered, CHAMPION, str(number))
    # As MLflow's own register_model sets it, for the model's page to show.
    names = strict_json.dumps([{"name": registered, "version": number}])
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": names})
    return number


def write_model(folder: Path, student: Path, model_id: str, run_id: str) -> None:
    """Write an MLflow model into `folder` without the weights, which are uploaded to `WEIGHTS`.

    Its code is `knife.track.scorer`, without a pickle. The student is not loaded.

    Args:
        folder: the folder to create; must not exist.
        student: a student's model folder.
        model_id: the logged model's id; `run_id` is that of its run.
    """
    about = json.loads((student / _SETTINGS).read_text())
    settings = folder.with_name(f"{folder.name}-settings") / Path(WEIGHTS).name
    settings.mkdir(parents=True)
    shutil.copy(student / _SETTINGS, settings)
    known = signature(bool(about.get("open")))
    question = {name: _QUESTION[name] for name in known.inputs.required_input_names()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            folder,
            python_model=Path(__file__).with_name("scorer.py"),
            artifacts={settings.name: str(settings)},
            signature=known,
            input_example=[question],
            pip_requirements=requirements(about.get("method", "")),
            mlflow_model=Model(model_id=model_id, run_id=run_id),
        )


def signature(opened: bool) -> ModelSignature:
    """Return a student's inputs and outputs, one row per question; an open one has no choices."""
    text = DataType.string
    inputs = [ColSpec(text, "question"), ColSpec(text, "id", required=False)]
    outputs = [ColSpec(text, "id", required=False)]
    if opened:
        outputs += [ColSpec(text, "text")]
    else:
        inputs.insert(1, ColSpec(Array(text), "choices"))
        outputs += [ColSpec(text, "choice"), ColSpec(DataType.long, "index")]
        outputs += [ColSpec(Array(DataType.double), "probabilities")]
        outputs += [ColSpec(Array(DataType.long), "tied", required=False)]
    outputs += [ColSpec(text, "rationale", required=False)]
    return ModelSignature(Schema(inputs), Schema(outputs))


def requirements(method: str) -> list[str]:
    """Return the packages that a method's student needs, in the versions that made it."""
    searches = ("bm25s",) if method == "retrieve" else ()
    names = (*LIBRARIES, *searches)
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def _find(client: MlflowClient, experiment: str, run: str, name: str) -> LoggedModel | None:
    found = client.search_logged_models(
        [experiment], f"source_run_id = '{run}' AND name = '{name}'"
    )
    return next(iter(found), None)


def _metrics(client: MlflowClient, run: str) -> list[Metric]:
    data: Any = client.get_run(run).data
    return newest_metrics(data)


def _results(client: MlflowClient, run: str) -> str:
    found = {m.key: m.value for m in _metrics(client, run)}
    return ", ".join(
        f"{split} accuracy {100 * found[f'{split}_accuracy']:.1f} %"
        for split in ("dev", "test")
        if f"{split}_accuracy" in found
    )
