"""Cosines and labels become figures with intervals."""
