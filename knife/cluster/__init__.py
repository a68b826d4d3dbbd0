"""Launch of jobs with Ray. Only this package imports Ray."""
