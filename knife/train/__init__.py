"""One stage as a job: DeepSpeed engine, loop, checkpoints, evaluation. Knows no Ray."""
