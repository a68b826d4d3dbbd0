"""Checks of the files in cluster/, each returning a list of errors, empty for a valid file."""

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import ray
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from knife.cli.main import app
from knife.config.recipe_files import find_config
from knife.config.run import read
from knife.core.errors import UserError
from knife.tune.search.sweep_file import read_checked_sweep

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster"
_LINES = (ROOT / "constraints.txt").read_text().splitlines()
VERSIONS = dict(line.split("==") for line in _LINES if "==" in line)
SCHEMA = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
# The version of Kubernetes' own schemas that pods are validated against.
_KUBERNETES = "1.34"
_SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY|API_KEY")


def documents(text: str) -> list[dict[str, Any]]:
    """Return the documents of a YAML file."""
    return [document for document in yaml.safe_load_all(text) if document]


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every mapping in a document."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from walk(inner)


def launcher_errors(text: str) -> list[str]:
    """Return errors in a file for `ray up`."""
    config = yaml.safe_load(text)
    invalid = jsonschema.Draft7Validator(SCHEMA).iter_errors(config)
    errors = [f"{'.'.join(map(str, error.path))}: {error.message}" for error in invalid]
    if errors:
        return errors
    try:
        validate_config(prepare_config(config))
    except Exception as error:
        return [str(error)]
    docker = config.get("docker", {})
    for key in ("image", "head_image", "worker_image"):
        expected = rf"rayproject/ray:{re.escape(VERSIONS['ray'])}-py311-[cg]pu"
        if key in docker and not re.fullmatch(expected, docker[key]):
            errors.append(f"docker.{key}: {docker[key]}")
    nodes = config.get("available_node_types", {})
    if nodes and config["head_node_type"] not in nodes:
        errors.append("head_node_type")
    for name, node in nodes.items():
        head = name == config["head_node_type"]
        if head == ("GPU" in node["resources"]):
            errors.append(f"{name}: GPUs belong to the workers")
        if not head and node["min_workers"] > node["max_workers"]:
            errors.append(f"{name}: min_workers")
        inner = node["node_config"]
        if not (inner.get("SecurityGroupIds") or inner.get("networkInterfaces")):
            errors.append(f"{name}: Ray would open ssh to the world")
        if any("accessConfigs" in one for one in inner.get("networkInterfaces", [])):
            errors.append(f"{name}: has a public address")
    installs = [c for c in config["setup_commands"] if "-c ~/knife/constraints.txt" in c]
    if not installs:
        errors.append("setup_commands: knife without constraints")
    starts = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    errors += [f"{c}: no token" for c in starts if "RAY_AUTH_MODE=token" not in c]
    if "--dashboard-host=127.0.0.1" not in starts[0]:
        errors.append("the dashboard is open")
    return errors + list(inline_secrets(config))


def kubernetes_errors(texts: dict[str, str]) -> list[str]:
    """Return errors in the files for Kubernetes, individually and together; texts by file name."""
    found = {name: documents(text) for name, text in texts.items()}
    everything = [document for some in found.values() for document in some]
    errors = []
    for document in everything:
        what = f"{document['kind']} {document['metadata'].get('name')}"
        if document["apiVersion"] == "ray.io/v1":
            errors += [f"{what}: {error}" for error in ray_errors(document)]
        elif document["apiVersion"] in ("v1", "apps/v1", "networking.k8s.io/v1"):
            errors += [f"{what}: {error}" for error in schema_errors(document)]
        else:
            errors.append(f"{what}: apiVersion {document['apiVersion']}")
        if document["kind"] == "Secret":
            errors.append(f"{what}: secrets are not kept in files")
        if document["kind"] == "Service" and document["spec"].get("type") != "ClusterIP":
            errors.append(f"{what}: can be reached from outside")
        if document["kind"] != "Namespace" and document["metadata"].get("namespace") != "knife":
            errors.append(f"{what}: namespace")
        errors += [f"{what}: {error}" for error in inline_secrets(document)]
    for pod in pods(everything):
        errors += pod_errors(pod)
    return errors + list(name_errors(everything, texts.get("base.yaml", "")))


def ray_errors(document: dict[str, Any]) -> Iterator[str]:
    """Return errors in KubeRay's resources: own keys by hand, pods by Kubernetes' schema."""
    spec = document["spec"]
    if document["kind"] == "RayJob":
        yield from (f"entrypoint: {error}" for error in command_errors(spec["entrypoint"]))
        if not spec.get("shutdownAfterJobFinishes"):
            yield "shutdownAfterJobFinishes"
        spec = spec["rayClusterSpec"]
    elif document["kind"] != "RayCluster":
        yield f"kind {document['kind']}"
        return
    if spec.get("rayVersion") != VERSIONS["ray"]:
        yield f"rayVersion {spec.get('rayVersion')} is not that of constraints.txt"
    if spec.get("authOptions") != {"mode": "token", "secretName": "knife-ray"}:
        yield "authOptions: no token"
    head = spec["headGroupSpec"]
    if head.get("serviceType") != "ClusterIP" or head["rayStartParams"].get("num-cpus") != "0":
        yield "headGroupSpec: serviceType or num-cpus"
    if "nvidia.com/gpu" in str(head):
        yield "headGroupSpec: GPUs belong to the workers"
    for group in spec["workerGroupSpecs"]:
        if not 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield f"{group['groupName']}: replicas"
        limits = group["template"]["spec"]["containers"][0]["resources"].get("limits", {})
        if "nvidia.com/gpu" not in limits:
            yield f"{group['groupName']}: no limit of GPUs"


def schema_errors(document: dict[str, Any]) -> list[str]:
    """Return errors in a document by Kubernetes' own schema, without unknown keys."""
    return _schema_errors(json.dumps(document))


@cache
def _schema_errors(document: str) -> list[str]:
    try:
        kubernetes_validate.validate(json.loads(document), _KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def pods(everything: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Yield every pod that the documents describe."""
    templates = [*walk(everything)]
    return [one for one in templates if "containers" in one.get("spec", {})]


def pod_errors(pod: dict[str, Any]) -> Iterator[str]:
    """Return errors in a pod: schema, root, limits and images."""
    metadata = {"name": "pod", **pod["metadata"]}
    yield from schema_errors(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]}
    )
    spec = pod["spec"]
    context = spec.get("securityContext", {})
    if not context.get("runAsNonRoot") or not context.get("runAsUser"):
        yield "a pod may run as root"
    if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        yield "a pod has the host's network or processes"
    if any("hostPath" in volume for volume in spec.get("volumes", [])):
        yield "a pod sees the host's files"
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for container in spec["containers"]:
        name = container["name"]
        inner = container.get("securityContext", {})
        if inner.get("privileged") or inner.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: privileges"
        if inner.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name}: capabilities"
        for kind in ("requests", "limits"):
            if not {"cpu", "memory"} <= set(container.get("resources", {}).get(kind, {})):
                yield f"{name}: no {kind}"
        tag = container["image"].rpartition(":")[2]
        if "/" in tag or tag == "latest" or not re.search(r"\d+\.\d+", tag):
            yield f"{name}: image {container['image']} has no fixed version"
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        if missing := mounts - volumes - {"data"}:
            yield f"{name}: no volumes {missing}"


def inline_secrets(document: Any) -> Iterator[str]:
    """Return values of secrets that a file contains."""
    for one in walk(document):
        if _SECRET.search(str(one.get("name", ""))) and "value" in one:
            yield f"{one['name']}: must come by secretKeyRef"
        for value in one.values():
            if isinstance(value, str) and re.search(r"://[^/\s:]+:(?!\$\()[^@\s]+@", value):
                yield "a password in an address"
            if isinstance(value, str) and re.search(
                r"AKIA[0-9A-Z]{16}|hf_\w{20}|BEGIN .*KEY", value
            ):
                yield "a key"


def name_errors(everything: list[dict[str, Any]], base: str) -> Iterator[str]:
    """Return names that one document uses and no other defines."""
    made = {(d["kind"], d["metadata"].get("name")) for d in everything}
    every = list(walk(everything))
    for one in every:
        claim = one.get("persistentVolumeClaim")
        if claim and ("PersistentVolumeClaim", claim["claimName"]) not in made:
            yield f"no claim {claim['claimName']}"
        secret = one.get("secretKeyRef") or (
            {"name": one["secretName"]} if "secretName" in one else {}
        )
        key = secret.get("key", "auth_token")
        created = re.search(rf"secret generic {secret.get('name')} .*--from-literal={key}=", base)
        if secret and not created:
            yield f"base.yaml does not say how to make {secret['name']} with {key}"
        for host in re.findall(r"(?:://|@)([a-z][a-z-]*):\d", str(one.get("value", ""))):
            if ("Service", host) not in made and host != "localhost":
                yield f"no service {host}"
    labels = [pod["metadata"]["labels"] for pod in pods(everything)]
    for one in every:
        spec = one.get("spec", {})
        wanted = [s.get("matchLabels", s) for s in (spec.get("selector"), one.get("podSelector"),
                  spec.get("podSelector")) if isinstance(s, dict)]  # fmt: skip
        for selector in wanted:
            if not any(selector.items() <= have.items() for have in labels):
                yield f"nothing has the labels {selector}"
    policies = [d["spec"] for d in everything if d["kind"] == "NetworkPolicy"]
    if not any(p["podSelector"] == {} and "ingress" not in p for p in policies):
        yield "no policy that closes what the others do not open"
    if any("from" not in rule for policy in policies for rule in policy.get("ingress", [])):
        yield "a policy lets everybody in"


def command_errors(line: str) -> list[str]:
    """Return errors in the arguments of a `knife` command, as the command itself reads them."""
    words = shlex.split(line, comments=True)
    words = words[words.index("knife") + 1 :]
    if words[0] == "submit":
        words = words[words.index("--") + 1 :]
    command: Any = typer.main.get_command(app)
    try:
        values = command.commands[words[0]].make_context("knife", words[1:]).params
        if words[0] == "run":
            read(find_config(values["config"]), values["overrides"])
        else:
            read_checked_sweep(ROOT / values["sweep"], values["overrides"])
    except UserError as error:
        return error.errors
    except Exception as error:
        return [str(error)]
    return []


def dockerfile_errors(text: str) -> Iterator[str]:
    """Return errors in a Dockerfile that hadolint does not check for."""
    if not re.search(r"^FROM python:3\.11\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?$", text, re.M):
        yield "FROM: no exact tag"
    users = re.findall(r"^USER (.*)$", text, re.M)
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        yield "USER: must be a number, and not root"
    for step in re.findall(r"pip install(?:.*\\\n)*.*", text):
        if "--no-cache-dir" not in step:
            yield "pip keeps its cache"
    if text.count("--constraint constraints.txt") < 2:
        yield "no constraints"
