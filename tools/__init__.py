"""Holds all commands except training. Run each as `python -m tools.NAME` from the repository's root."""
