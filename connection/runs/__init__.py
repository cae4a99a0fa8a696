"""One run's life: its folder, checkpoints, resuming, several seeds."""
