"""Holds the measured comparisons. Run each as `python -m benchmarks.NAME`."""
