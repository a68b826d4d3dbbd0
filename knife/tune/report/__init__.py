"""A sweep's tables, curves, plots and page."""
