"""MLflow. Only this package imports it."""

import os

# Before MLflow is imported. What is told waits in an outbox of our own, so MLflow need not retry
# for minutes, whatever is set: one retry covers a connection that went stale while idle.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
os.environ["MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER"] = "false"
# Its lines about finished runs show the address with its password.
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
# What the user has set stays.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Else it takes a uv.lock of the folder that one stands in for the model's requirements.
    "MLFLOW_UV_AUTO_DETECT": "false",
}.items():
    os.environ.setdefault(_name, _value)
