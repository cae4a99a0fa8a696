"""Correlation: of predictions with labels, and of annotators with one another."""

from __future__ import annotations

import math

import numpy as np


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation of x (N,) and y (N,) in [-1, 1]; NaN if one of them is constant or not finite."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return float("nan")
    # Tested before centring: the mean of equal numbers may be rounded, and the remaining noise would be correlated.
    if len(x) < 2 or x.min() == x.max() or y.min() == y.max():
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    spread = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.clip(x @ y / spread, -1, 1)) if spread > 0 else float("nan")


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman rank correlation of x (N,) and y (N,) in [-1, 1], with mean ranks for ties; NaN where `pearson` is."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):  # NaN has no rank
        return float("nan")
    return pearson(ranks(x), ranks(y))


def spearman_interval(value: float, pairs: int) -> tuple[float, float]:
    """The 95% interval of a Spearman correlation of more than three pairs; `value` twice for 1, -1 and NaN.

    Bonett & Wright 2000, Psychometrika 65(1), eq. 3: Fisher's z with a variance of (1 + r^2 / 2) / (N - 3).
    """
    if not -1 < value < 1:
        return value, value
    half = 1.96 * math.sqrt((1 + value**2 / 2) / (pairs - 3))
    return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value, from 1, with mean ranks for ties: (N,) -> (N,) float64."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[group]


def figures(prediction: np.ndarray, label: np.ndarray) -> dict[str, float | int]:
    """Return {"spearman", "pearson", "pairs"} of predictions (N,) against labels (N,)."""
    return {"spearman": spearman(prediction, label), "pearson": pearson(prediction, label), "pairs": len(label)}
