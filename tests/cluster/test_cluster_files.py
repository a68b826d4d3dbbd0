"""The files of cluster/ are valid as far as can be checked offline, and the checks find errors."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_files import (
    FOLDER,
    VERSIONS,
    command_errors,
    dockerfile_errors,
    kubernetes_errors,
    launcher_errors,
)
from host_cluster import needs_hosts

LAUNCHERS = ("local", "aws", "gcp")
KUBERNETES = {path.name: path.read_text() for path in (FOLDER / "kubernetes").glob("*.yaml")}


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_files_for_ray_up(name: str) -> None:
    assert launcher_errors((FOLDER / f"{name}.yaml").read_text()) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("local", "head_ip: 192.0.2.10", "head_ips: 192.0.2.10"),
        ("local", "cluster_name", "cluster"),
        ("local", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0"),
        ("local", "-c ~/knife/constraints.txt ", ""),
        ("aws", "RAY_AUTH_MODE=token ", ""),
        ("aws", VERSIONS["ray"], "2.59.0"),
        ("aws", "resources: {CPU: 0}", "resources: {CPU: 0, GPU: 1}"),
        ("aws", "SecurityGroupIds: [sg-CHANGE-ME]", "Tags: []"),
        ("aws", "max_workers: 8\nidle", "max_workers: many\nidle"),
        ("gcp", "head_node_type: head", "head_node_type: heads"),
        ("gcp", "min_workers: 0", "min_workers: 9"),
        ("gcp", "- subnetwork:", "- accessConfigs: []\n          subnetwork:"),
        ("gcp", "project_id: CHANGE-ME", "project_id: https://me:hunter2@example.com"),
    ],
)  # fmt: skip
def test_errors_of_files_for_ray_up_are_found(name: str, old: str, new: str) -> None:
    assert launcher_errors(changed((FOLDER / f"{name}.yaml").read_text(), old, new))


def test_files_for_kubernetes() -> None:
    assert set(KUBERNETES) == {"base.yaml", "mlflow.yaml", "raycluster.yaml", "rayjob.yaml"}
    assert kubernetes_errors(KUBERNETES) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("raycluster.yaml", f'rayVersion: "{VERSIONS["ray"]}"', 'rayVersion: "2.59.0"'),
        ("raycluster.yaml", "ray.io/v1", "ray.io/v1alpha1"),
        ("raycluster.yaml", "kind: RayCluster", "kind: RayClusters"),
        ("raycluster.yaml", "mode: token", "mode: disabled"),
        ("raycluster.yaml", "serviceType: ClusterIP", "serviceType: LoadBalancer"),
        ("raycluster.yaml", "knife:0.1.0-gpu", "knife:latest"),
        ("raycluster.yaml", "knife:0.1.0-gpu", "knife"),
        ("raycluster.yaml", 'memory: 8Gi}', "memorie: 8Gi}"),
        ("raycluster.yaml", 'limits: {cpu: "8", memory: 32Gi, nvidia.com/gpu: "1"}', "limits: {}"),
        ("raycluster.yaml", 'num-cpus: "0"', 'num-cpus: "8"'),
        ("raycluster.yaml", "claimName: knife-shared", "claimName: knife-share"),
        ("raycluster.yaml", "name: knife-hub", "name: knife-hubs"),
        ("raycluster.yaml", "http://mlflow:5000", "http://mlflows:5000"),
        ("raycluster.yaml", "maxReplicas: 8", "maxReplicas: -1"),
        ("raycluster.yaml", "{name: shared, mountPath", "{name: sharing, mountPath"),
        ("raycluster.yaml", "allowPrivilegeEscalation: false", "privileged: true"),
        ("raycluster.yaml", "volumes:", "hostNetwork: true\n      volumes:"),
        ("rayjob.yaml", "scale.workers=2", "scale.worker=2"),
        ("rayjob.yaml", "strategyqa-t5-base", "strategyqa-t6-base"),
        ("rayjob.yaml", "runAsNonRoot: true", "runAsNonRoot: false"),
        ("rayjob.yaml", "restartPolicy: Never", "restartpolicy: Never"),
        ("rayjob.yaml", "component: submitter", "component: submitters"),
        ("mlflow.yaml", "type: ClusterIP", "type: NodePort"),
        ("mlflow.yaml", "targetPort: http", "targetport: http"),
        ("mlflow.yaml", "replicas: 1", "replicas: one"),
        ("mlflow.yaml", "namespace: knife", "namespace: default"),
        ("mlflow.yaml", "mlflow:$(POSTGRES_PASSWORD)@", "mlflow:hunter2@"),
        ("mlflow.yaml", "mlflow-postgres:5432", "postgres:5432"),
        ("mlflow.yaml", "key: secret_access_key", "key: secret"),
        ("mlflow.yaml", "name: POSTGRES_PASSWORD", "name: A_TOKEN\n              value: a"),
        ("mlflow.yaml", "component: mlflow}\n  ports", "component: mlflo}\n  ports"),
        ("mlflow.yaml", "kind: Service", "kind: Secret"),
        ("base.yaml", "component: postgres}", "component: postgre}"),
        ("base.yaml", "  podSelector: {}", "  podSelector: {matchLabels: {a: b}}"),
        ("base.yaml", "--from-literal=auth_token", "--from-literal=token"),
        ("base.yaml", "accessModes: [ReadWriteMany]", "accessMode: [ReadWriteMany]"),
    ],
)  # fmt: skip
def test_errors_of_files_for_kubernetes_are_found(name: str, old: str, new: str) -> None:
    assert kubernetes_errors(KUBERNETES | {name: changed(KUBERNETES[name], old, new)})


def commands() -> list[str]:
    """Return the `knife` lines in the heads of all files."""
    found = []
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path.name != "README.md":
            for line in path.read_text().splitlines():
                if line.startswith("#") and (
                    hit := re.search(r"knife submit .*--address http.*", line)
                ):
                    found.append(hit.group())
                elif line.startswith("#") and "cluster/slurm.sh " in line:
                    found.append(f"knife {line.partition('cluster/slurm.sh ')[2]}")
    return found


def test_commands_in_the_heads_are_words_that_knife_takes() -> None:
    assert len(commands()) >= 6
    for line in commands():
        if '"http' not in line:
            assert command_errors(line) == [], line
    assert command_errors("knife run demo sead=1")
    assert command_errors("knife run demo --dry-rum")


@needs_hosts
def test_hosts_of_several_clusters_have_addresses_of_their_own() -> None:
    names = [f"k{os.getpid()}{letter}" for letter in "abcdef"]

    def command(name: str, *words: str) -> str:
        environment = {**os.environ, "KNIFE_HOSTS": name}
        return subprocess.check_output([FOLDER / "hosts.sh", *words], env=environment, text=True)

    try:
        for name in names:
            command(name, "up", "1")
        assert len({command(name, "address", "1") for name in names}) == len(names)
    finally:
        for name in names:
            command(name, "down")


@pytest.mark.parametrize("name", ["slurm.sh", "hosts.sh"])
def test_shell_scripts(name: str) -> None:
    assert tool("shellcheck", FOLDER / name) == ""


def test_the_image() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    assert tool("hadolint", FOLDER / "Dockerfile") == ""
    assert list(dockerfile_errors(text)) == []
    for old, new in [
        ("python:3.11.14-slim-bookworm", "python:3.11-slim"),
        ("USER 1000:1000", "USER knife"),
        ("USER 1000:1000", "USER 0:0"),
        ("--no-cache-dir", ""),
        ("--constraint constraints.txt", ""),
    ]:
        assert list(dockerfile_errors(changed(text, old, new))), old


def test_shellcheck_and_hadolint_find_errors(tmp_path: Path) -> None:
    (tmp_path / "bad.sh").write_text("#!/bin/bash\ncd $1\n")
    assert "SC2086" in tool("shellcheck", tmp_path / "bad.sh")
    (tmp_path / "Dockerfile").write_text("FROM python\n")
    assert "DL3006" in tool("hadolint", tmp_path / "Dockerfile")


def tool(name: str, file: Path) -> str:
    """Return a linter's findings on a file; it is a program of this Python, from the test extra."""
    program = Path(sys.executable).with_name(name)
    if not program.exists():
        pytest.skip(f"{name} is not installed beside this Python")
    return subprocess.run([program, file], capture_output=True, text=True).stdout
