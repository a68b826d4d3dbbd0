"""A sweep as a Ray job, as a user submits it: on a running cluster, from a folder of files."""

import subprocess
from pathlib import Path

from ray_cluster import RAY, Cluster

ROOT = Path(__file__).parents[2]
SMALL = [
    "data.world.train=40",
    "data.world.dev=20",
    "data.world.test=20",
    "teacher.epochs=1",
    "student.epochs=1",
    "budget.trials=2",
    "scheduler.grace=1",
    "final=null",
]


def test_a_sweep_runs_as_a_ray_job(cluster: Cluster, tmp_path: Path) -> None:
    # The folder only has the sweep; the package is installed on the cluster.
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "smoke.yaml").write_text((ROOT / "tune" / "smoke.yaml").read_text())
    store = tmp_path / "store"
    command = [
        RAY,
        "job",
        "submit",
        "--address",
        cluster.address,
        "--working-dir",
        str(tmp_path),
        "--",
    ]
    command += ["python", "-m", "knife", "tune", "tune/smoke.yaml", *SMALL, f"store={store}"]
    done = subprocess.run(
        command, env=cluster.environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[2/2] trial" in done.stdout
    assert (store / "sweeps" / "smoke" / "best.yaml").is_file()
    assert len(list((store / "teacher").iterdir())) == 1
