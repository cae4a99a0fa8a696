"""Loads a model folder, computes sentence vectors with its BERT, and saves a model folder."""
