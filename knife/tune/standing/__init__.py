"""How a sweep stands while it goes on, in the terminal and in MLflow."""
