"""MLflow. Only this package imports it."""

import os

# Set before MLflow is imported; what the user has set stays. Metrics wait in our own queue, so
# MLflow need not retry for minutes: one retry covers a connection that went stale while idle.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}.items():
    os.environ.setdefault(_name, _value)
