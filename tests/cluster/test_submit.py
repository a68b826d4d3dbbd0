"""`knife submit` on a real cluster: jobs, logs, exit status, interruptions and README's lines."""

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_fixtures import Ended
from mlflow import MlflowClient
from ray.job_submission import JobSubmissionClient
from ray_cluster import RAY, Cluster
from readme_lines import lines, needs_a_cluster
from small_sweep import ASHA, RATE, Swept, trainings, watching, write_sweep

from knife.tune.command import plan_file

ROOT = Path(__file__).parents[2]
SMALL = [
    "scale.launcher=process",
    "data.world.train=40",
    "data.world.dev=20",
    "data.world.test=20",
    "teacher.epochs=1",
    "student.epochs=1",
]
ONE = ["methods=[finetune]", "seeds=[0]"]


def started(
    cluster: Cluster, folder: Path, *words: str, terminal: int | None = None, **more: str
) -> "subprocess.Popen[str]":
    """Start `knife submit WORDS` in a folder, as a separate process."""
    return subprocess.Popen(
        [sys.executable, "-m", "knife", "submit", "--address", cluster.address, *words],
        cwd=folder,
        # The given address takes precedence over Ray's variables.
        env=cluster.environment | {"RAY_ADDRESS": "127.0.0.1:9"} | more,
        stdin=subprocess.DEVNULL if terminal is None else terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if terminal is None else terminal,
        text=True,
    )


def said(err: str, what: str) -> str:
    """Return what follows `what: ` on stderr."""
    (found,) = [line for line in err.splitlines() if line.startswith(f"{what}: ")]
    return found.removeprefix(f"{what}: ").strip()


def job_tag(store: Path) -> str:
    """Return the Ray job that MLflow has for the newest start of a store's only run."""
    client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    experiments = [each.experiment_id for each in client.search_experiments()]
    (run,) = client.search_runs(experiments, "tags.`knife.ray.job` != ''")
    return str(run.data.tags["knife.ray.job"])


@pytest.fixture
def long_job(tmp_path: Path) -> list[str]:
    """Return the arguments of a run that is too long for a test to wait for."""
    store = f"store={tmp_path / 'store'}"
    return ["run", "demo", *SMALL, "student.epochs=100000", store]


def test_every_line_of_the_readme_that_needs_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    folder, store = tmp_path / "folder", tmp_path / "store"
    (folder / "tune").mkdir(parents=True)
    (folder / "tune" / "smoke.yaml").write_text((ROOT / "tune" / "smoke.yaml").read_text())
    (folder / "big.bin").touch()
    (folder / ".gitignore").write_text("big.bin\n")
    os.truncate(folder / "big.bin", 200_000_000)
    found = [words for words in lines() if needs_a_cluster(words)]
    assert [words[0] for words in found] == ["ray", "knife", "knife"]
    for number, words in enumerate(found):
        words[words.index("--address") + 1] = cluster.address
        assert words[-1] == "store=/shared/knife-store"
        words[-1:] = [*SMALL, *(ONE if "run" in words else []), f"store={store}"]
        words[:1] = [RAY] if words[0] == "ray" else [sys.executable, "-m", "knife"]
        done = subprocess.run(
            words, cwd=folder, env=cluster.environment, capture_output=True, text=True, timeout=3000
        )
        assert done.returncode == 0, done.stdout + done.stderr
        if "--no-wait" not in words:
            assert "verdict, config and report: " in done.stdout
            assert f"MLflow: knife ui --store {store}" in done.stdout
            assert (number == 1) == ("nothing was trained" in done.stdout)
            # The job that made the results, whichever job finds them there later.
            if number == 0:
                made_by = job_tag(store)
                assert made_by in done.stdout
            else:
                assert job_tag(store) == made_by != said(done.stderr, "job")
        else:
            stop = shlex.split(said(done.stderr, "stop it"))
            subprocess.run([RAY, *stop[1:]], env=cluster.environment, check=True, timeout=300)
            assert said(done.stderr, "follow it").startswith("ray job logs ")
            assert done.stdout == ""


def test_a_job_has_our_tracking_server_and_its_exit_status_is_ours(
    cluster: Cluster, tmp_path: Path
) -> None:
    # A server, but not an MLflow server.
    nobody = cluster.address
    words = ["--", "run", "demo", *SMALL, *ONE, f"store={tmp_path / 'store'}"]
    job = started(cluster, tmp_path, *words, MLFLOW_TRACKING_URI=nobody)
    out, err = job.communicate(timeout=3000)
    assert job.returncode == 2, out + err
    assert f"error: MLFLOW_TRACKING_URI: MLflow at {nobody} cannot be used" in out
    number = said(err, "job")
    assert said(err, "MLflow") == nobody
    assert said(err, "dashboard") == f"{cluster.address}/#/jobs/{number}"
    assert err.splitlines()[-1] == f"job {number} failed"
    assert "Traceback" not in err


def test_ctrl_c_without_a_terminal_leaves_the_job_running(
    cluster: Cluster, tmp_path: Path, long_job: list[str]
) -> None:
    process = started(cluster, tmp_path, "--", *long_job)
    assert process.stdout
    for line in process.stdout:
        if "Running entrypoint" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "the job continues" in err
    client = JobSubmissionClient(cluster.address)
    job = said(err, "job")
    assert client.get_job_status(job) == "RUNNING"
    assert said(err, "stop it") == f"ray job stop --address {cluster.address} {job}"
    client.stop_job(job)


def test_ctrl_c_at_a_terminal_asks_whether_to_stop_the_job(
    cluster: Cluster, tmp_path: Path, long_job: list[str]
) -> None:
    keyboard, terminal = pty.openpty()
    process = started(cluster, tmp_path, *long_job, terminal=terminal)
    os.close(terminal)
    assert process.stdout
    seen = b""

    def read(words: bytes) -> None:
        nonlocal seen
        while words not in seen:
            seen += os.read(keyboard, 1000)
        seen = seen.partition(words)[2]

    try:
        read(b"job: ")
        for line in process.stdout:
            if "Running entrypoint" in line:
                break
        for answer in (b"n\n", b"y\n"):
            process.send_signal(signal.SIGINT)
            read(b"stop the job? [y/N]")
            os.write(keyboard, answer)
            read(b"the job continues" if answer == b"n\n" else b"stopping the job")
        read(b" stopped")
        rest = process.stdout.read()
        assert process.wait(timeout=300) == 130
        # The log continues where it stopped.
        assert "Running entrypoint" not in rest
    finally:
        os.close(keyboard)
        process.kill()


@pytest.mark.slow
def test_a_sweep_of_two_workers_a_trial_runs_as_a_ray_job(cluster: Cluster, tmp_path: Path) -> None:
    """From a folder of files, as a user submits it; the package is installed on the cluster, whose
    two CPUs take one trial at a time."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = write_sweep(
        folder,
        metric="dev_loss",
        space={RATE: {"choice": [3e-3, 2.0]}},
        first=[{RATE: 3e-3}, {RATE: 2.0}],
        budget={"trials": 2},
        set={"student.epochs": 8},
        scheduler=ASHA,
        final=None,
    )
    words = ["scale.workers=2", "track.register=small"]
    command = [RAY, "job", "submit", "--address", cluster.address, "--working-dir", str(folder)]
    command += ["--runtime-env-json", json.dumps({"env_vars": watching(tmp_path)})]
    command += ["--", "python", "-m", "knife", "tune", "sweep.yaml", *words]
    done = subprocess.run(
        command, env=cluster.environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[2/2] trial" in done.stdout
    ended = Ended(done.returncode, done.stdout, done.stderr)
    found = Swept(path, ended, plan_file(path, words))
    assert (found.folder / "best.yaml").is_file()
    assert len(list((found.store.root / "teacher").iterdir())) == 1
    assert [row["state"] for row in found.rows.values()] == ["finished", "pruned"]
    assert set(trainings(folder).values()) == {1}
    # Without a final, the best trial's student is the champion.
    _, trials = found.tracked()
    client = MlflowClient(f"sqlite:///{found.store.root / 'mlflow.db'}")
    version = client.get_model_version_by_alias("small", "champion")
    champion = client.get_run(version.run_id)
    assert champion.data.tags["mlflow.parentRunId"] == trials["trial 1"].info.run_id
    assert champion.data.tags["knife.fingerprint"] == found.rows[1]["students"]["0"]
    assert found.left_in_work() == []


def test_a_cluster_that_is_up_is_used_and_one_without_a_node_here_is_not(cluster: Cluster) -> None:
    """In a separate process, since this one must not have a session."""
    script = """
import os, sys
from knife.cluster import address
from knife.launch.session import session
from knife.core.errors import UserError
with session(0):
    import ray
    # Ray replaces 127.0.0.1 with another address of this machine.
    print(*(at.rpartition(":")[2]
            for at in (ray.get_runtime_context().gcs_address, os.environ["RAY_ADDRESS"])))
# A node that runs elsewhere is not among the processes here.
from ray._private import services
services.find_node_ids, address._NODE_SECONDS = set, 1
try:
    address.refuse_dead_cluster()
except UserError as error:
    print(error)
"""
    environment = cluster.environment | {"RAY_ADDRESS": cluster.head}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    used, error = done.stdout.splitlines()
    connected, wanted = used.split()
    assert connected == wanted
    assert error.startswith(f"RAY_ADDRESS: the Ray cluster at {cluster.head} has no node on this ")
