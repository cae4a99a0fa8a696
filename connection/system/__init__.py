"""Provides what programs need of the system: paths, versions, devices, signals, locks, atomic files, errors."""
