"""A sweep's progress in the terminal, and what MLflow shows of it."""
