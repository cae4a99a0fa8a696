"""Checks a model folder, which may be damaged or hostile, before a library reads it."""
