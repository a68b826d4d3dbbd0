"""MLflow's process-wide settings, as we need them while we use it."""

import os
from contextlib import AbstractContextManager

from knife.core.environment import variables

# Unsent messages wait in our own outbox, so MLflow must not retry for minutes, even if set to: one
# retry covers a connection that went stale while idle.
_OURS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    # What it prints about finished runs shows the address with its password.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# Values that the user has set take precedence.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Otherwise it takes a uv.lock in the current folder for the model's requirements.
    "MLFLOW_UV_AUTO_DETECT": "false",
}


def mlflow_settings() -> AbstractContextManager[None]:
    """Apply the settings in the returned context, and restore the previous ones at its end.

    MLflow reads some at import, so it must be imported inside the context.
    """
    unset = {name: value for name, value in _DEFAULTS.items() if name not in os.environ}
    return variables(_OURS | unset)
