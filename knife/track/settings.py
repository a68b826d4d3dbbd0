"""MLflow's settings of a whole process, as they must be while we use it."""

import os
from contextlib import AbstractContextManager

from knife.core.environment import variables

# What is unsent waits in an outbox of our own, so MLflow need not retry for minutes, whatever is
# set: one retry covers a connection that went stale while idle.
_OURS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    # Its lines about finished runs show the address with its password.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# What the user has set stays.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Else it takes a uv.lock in the current folder for the model's requirements.
    "MLFLOW_UV_AUTO_DETECT": "false",
}


def mlflow_settings() -> AbstractContextManager[None]:
    """Set them until the context ends, and then put back what was there.

    Some are read when MLflow is imported, which therefore happens inside.
    """
    unset = {name: value for name, value in _DEFAULTS.items() if name not in os.environ}
    return variables(_OURS | unset)
