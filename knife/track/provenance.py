"""Which code and which job made a result."""

import json
import os
import subprocess

LIBRARIES = ("torch", "transformers", "deepspeed", "ray")


def job_tags() -> dict[str, str]:
    """Return the id of the Ray job whose entrypoint this process is, as a tag."""
    try:
        config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", ""))
        return {"knife.ray.job": str(config["metadata"]["job_submission_id"])}
    except (ValueError, KeyError, TypeError):
        return {}


def git_tags() -> dict[str, str]:
    """Return tags with the commit of the current folder, and whether it has uncommitted changes."""

    def ask(*words: str) -> str:
        command = ["git", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        tags = {"mlflow.source.git.commit": ask("rev-parse", "HEAD")}
        tags["knife.git.changed"] = str(bool(ask("status", "--porcelain"))).lower()
    except (OSError, subprocess.SubprocessError):
        return {}
    return tags
