"""Measured comparisons, each run as `python -m benchmarks.NAME`."""
