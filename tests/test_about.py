"""What MLflow gets of a run besides its results."""

import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from small_run import small_config

from knife.plan.plan import Plan, plan_run
from knife.store.store import Store
from knife.track.describe import data_sets, member_params, run_tags

SHUFFLED = {"name": "mixed", "method": "knife", "data": {"rationale": "shuffled"}}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    store = tmp_path_factory.mktemp("about")
    return plan_run(small_config(store, methods=["finetune", "knife", "prompt", SHUFFLED]))


def test_data_sets_say_how_the_rationales_of_a_variant_were_treated(plan: Plan) -> None:
    store = Store(plan.config.store, write=False)
    keys = {member.method: member.student.data for member in plan.members}
    names = {
        method: [(each.name, each.split) for each in data_sets(plan, key, store)]
        for method, key in keys.items()
    }
    splits = ("train", "dev", "test")
    assert names["knife"] == [("creatures", split) for split in splits]
    assert names["mixed"] == [("creatures shuffled", split) for split in splits]
    train, _, test = data_sets(plan, keys["knife"], store)
    assert (train.examples, train.rationales, test.examples) == (40, 40, 20)
    assert train.place == f"{store.address}/data/{keys['knife']}/train.arrow"


def test_params_of_a_student_are_those_that_it_hangs_on(plan: Plan) -> None:
    params: dict[str, dict[str, Any]] = {m.method: member_params(plan, m) for m in plan.members}
    assert {name: set(values) for name, values in params.items()} == {
        "finetune": {"method", "seed", "data", "model", "student"},
        "knife": {"method", "seed", "data", "model", "student", "align"},
        "prompt": {"method", "seed", "data", "model", "prompt"},
        "mixed": {"method", "seed", "data", "model", "student", "align"},
    }
    assert params["mixed"]["data"]["rationale"] == "shuffled"
    assert "teacher" not in params["finetune"]["model"]


def test_tags_have_versions_scale_and_the_folders_commit(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tags = run_tags(plan)
    assert tags["knife.version.transformers"] == version("transformers")
    assert tags["knife.scale"] == "1 worker (this process), ZeRO 0, fp32"
    assert "mlflow.source.git.commit" not in tags
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    for changed in ("false", "true"):
        tags = run_tags(plan)
        assert tags["mlflow.source.git.commit"] == head.stdout.strip()
        assert tags["knife.git.changed"] == changed
        (tmp_path / "new").touch()
