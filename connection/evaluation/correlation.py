"""Predictions x labels -> correlation figures."""

from __future__ import annotations

import numpy as np


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of x (N,) and y (N,) in [-1, 1]; NaN where it is undefined, one of them being constant."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    # Compared as they are: the mean of equal numbers may be rounded, and noise around it would be correlated.
    if len(x) < 2 or x.min() == x.max() or y.min() == y.max():
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    spread = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.clip(x @ y / spread, -1, 1)) if spread > 0 else float("nan")


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation of x (N,) and y (N,), tied values sharing their mean rank; NaN where undefined."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):  # what is no number has no rank
        return float("nan")
    return pearson(ranks(x), ranks(y))


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value from 1, tied values sharing their mean rank: (N,) -> (N,) float64."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[group]


def figures(prediction: np.ndarray, label: np.ndarray) -> dict[str, float | int]:
    """{"spearman", "pearson", "pairs"} of predictions (N,) against labels (N,)."""
    return {"spearman": spearman(prediction, label), "pearson": pearson(prediction, label), "pairs": len(label)}
