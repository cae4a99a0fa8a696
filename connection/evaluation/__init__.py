"""Computes metrics with confidence intervals from cosines and labels."""
