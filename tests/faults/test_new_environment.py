"""A student as MLflow's model, in a separate environment: loaded, and served over HTTP."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from command_fixtures import FinishedRun, free_port
from mlflow import MlflowClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from recorded import run_tree
from small_run import wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
LOAD = """
import json, sys
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = [json.loads(line) for line in open(sys.argv[2])]
questions = [{name: row[name] for name in ("id", "question", "choices")} for row in rows]
json.dump(model.predict(questions).to_dict("records"), sys.stdout)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment with mlflow, torch, transformers and knife, and what the first
    three need: neither ray nor deepspeed. The packages are those of this environment, as links."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    for package in needed_by("mlflow", "torch", "transformers"):
        link(package, site, folder / "bin")
    # A copy, since building a package writes files beside its sources.
    copy = folder / "source"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "knife", copy / "knife")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    built = subprocess.run([*pip, "--target", site, copy], capture_output=True, text=True)
    # What builds the package comes from an index, which a machine may not reach.
    if "Could not find a version that satisfies" in built.stderr:
        pytest.skip(f"no package index: {built.stderr[-300:]}")
    assert built.returncode == 0, built.stderr
    return folder / "bin"


def needed_by(*names: str) -> list[Distribution]:
    """Return the installed packages of these names, and all that they require here."""
    found: dict[str, Distribution] = {}
    left = list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            # One for another system.
            continue
        for each in map(Requirement, found[name].requires or []):
            if not each.marker or each.marker.evaluate({"extra": ""}):
                left.append(each.name)
    assert not {"ray", "deepspeed", "knife"} & found.keys()
    return list(found.values())


def link(package: Distribution, site: Path, bin_folder: Path) -> None:
    """Put an installed package into another environment; its commands start that one's python."""
    for name in {file.parts[0] for file in package.files or [] if file.parts[0] != ".."}:
        if not (site / name).exists():
            (site / name).symlink_to(str(package.locate_file(name)))
    for file in package.files or []:
        source = Path(str(package.locate_file(file))).resolve()
        if source.parent == Path(sys.executable).parent and not (bin_folder / source.name).exists():
            text = source.read_text().replace(sys.executable, str(bin_folder / "python"))
            (bin_folder / source.name).write_text(text)
            (bin_folder / source.name).chmod(0o755)


@pytest.fixture(scope="module")
def model(finished_run: FinishedRun) -> Path:
    about = finished_run.result["mlflow"]
    _, nested = run_tree(about["uri"], about["run_id"])
    (output,) = nested["knife seed 0"].outputs.model_outputs
    found = MlflowClient(about["uri"]).get_logged_model(output.model_id)
    return Path(found.artifact_location.removeprefix("file://"))


def clean() -> dict[str, str]:
    """Return this process's environment without what makes the repository importable."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | SETTINGS


def predicted(finished: FinishedRun, folder: Path) -> list[dict[str, Any]]:
    output = folder / "choices.jsonl"
    words: list[str | Path] = [
        "predict",
        finished.student("knife"),
        finished.test_file,
        "--output",
        output,
    ]
    subprocess.run([sys.executable, "-m", "knife", *words], check=True, capture_output=True)
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_it_loads_and_answers_as_predict_does(
    environment: Path, model: Path, finished_run: FinishedRun, tmp_path: Path
) -> None:
    command: list[str | Path] = [environment / "python", "-c", LOAD, model, finished_run.test_file]
    done = subprocess.run(command, capture_output=True, text=True, env=clean(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == predicted(finished_run, tmp_path)
    absent = "import importlib.util as u; print(u.find_spec('ray'), u.find_spec('deepspeed'))"
    there = subprocess.run([environment / "python", "-c", absent], capture_output=True, text=True)
    assert there.stdout.split() == ["None", "None"]


@pytest.fixture
def served(environment: Path, model: Path, tmp_path: Path) -> Iterator[str]:
    """Yield the address of `mlflow models serve`."""
    port = free_port()
    command: list[str | Path] = [environment / "mlflow", "models", "serve", "--model-uri", model]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    path = {"PATH": f"{environment}:{os.environ['PATH']}"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=clean() | path, start_new_session=True
        )
    try:
        wait_for(lambda: server.poll() is not None or _ping(port), seconds=180, pause=0.2)
        assert server.poll() is None, (tmp_path / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _ping(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(address: str, questions: list[dict[str, Any]]) -> Any:
    request = urllib.request.Request(
        f"{address}/invocations",
        json.dumps({"dataframe_records": questions}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


def test_models_serve_answers_as_predict_does(
    served: str, finished_run: FinishedRun, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in finished_run.test_file.read_text().splitlines()]
    questions = [{name: row[name] for name in ("id", "question", "choices")} for row in rows]
    assert ask(served, questions) == predicted(finished_run, tmp_path)
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(served, [{"question": "do frogs lay eggs ?", "choices": ["yes"]}])
    assert refused.value.code == 400
    assert "row 1: choices: must be two or more" in refused.value.read().decode()
