"""MLflow. Only this package imports it."""
