"""Sources to Examples to token batches. Knows neither Ray, DeepSpeed nor MLflow."""
