"""Commands beside training, each run as `python -m tools.NAME` from the repository's root."""
