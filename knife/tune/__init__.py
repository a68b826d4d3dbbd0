"""Sweeps with Ray Tune: many runs from one search space, each teacher trained once."""
