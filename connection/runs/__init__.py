"""Manages a run: its folder, checkpoints, resuming, and runs with several seeds."""
