"""Implements the training step: objectives, optimizer, schedule, gradient caching, and the state that a run resumes from."""
