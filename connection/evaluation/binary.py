"""Metrics for binary labels: how well scores separate connected pairs from the others, with and without a threshold.

Every function takes scores (N,) and `positive` (N,) bool. Equal scores are never separated: they are on the same side of every
threshold. A metric that is undefined, for example because all labels are one class, is NaN.
"""

from __future__ import annotations

import numpy as np

from connection.data.correlation import ranks


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Sum over thresholds of precision x gain in recall, in [0, 1] (Manning, Raghavan & Schütze 2008, section 8.4)."""
    if not 0 < positive.sum() < len(positive):
        return float("nan")
    _, hits, taken = _by_threshold(score, positive)
    return float((hits / taken) @ np.diff(hits, prepend=0) / hits[-1])


def roc_auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a connected pair scores above an unconnected one; a tie counts half (Mann-Whitney U). In [0, 1]."""
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if not ones or not zeros:
        return float("nan")
    return float((ranks(score)[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def best_threshold(score: np.ndarray, positive: np.ndarray) -> float:
    """Threshold with the highest F1: pairs with this score or more count as connected. NaN if all labels are one class.

    It is midway between two adjacent scores, or the lowest score. Among equally good thresholds the highest is returned.
    """
    if not 0 < positive.sum() < len(positive):
        return float("nan")
    scores, hits, taken = _by_threshold(score, positive)
    best = int(np.argmax(2 * hits / (taken + hits[-1])))
    return float((scores[best] + scores[best + 1]) / 2) if best + 1 < len(scores) else float(scores[best])


def at_threshold(score: np.ndarray, positive: np.ndarray, threshold: float) -> dict[str, float]:
    """Return {"f1", "precision", "recall", "mcc", "accuracy"} when pairs with scores >= `threshold` are predicted connected.

    mcc is Matthews' correlation coefficient (1975) in [-1, 1]. NaN: precision if no pair is predicted connected, recall if none
    is labelled connected, F1 if both hold, mcc if labels or predictions are all one class; all metrics if `threshold` is NaN.
    """
    if np.isnan(threshold):
        return dict.fromkeys(("f1", "precision", "recall", "mcc", "accuracy"), float("nan"))
    called = score >= threshold
    hits, taken, ones = (float(which.sum()) for which in (called & positive, called, positive))
    misses, alarms = ones - hits, taken - hits
    rest = len(score) - hits - misses - alarms  # true negatives
    margins = float(np.sqrt(taken) * np.sqrt(ones) * np.sqrt(rest + alarms) * np.sqrt(rest + misses))
    return {
        "f1": _share(2 * hits, taken + ones),
        "precision": _share(hits, taken),
        "recall": _share(hits, ones),
        "mcc": _share(hits * rest - misses * alarms, margins),
        "accuracy": _share(hits + rest, len(score)),
    }


def _share(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")


def _by_threshold(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The D distinct scores, highest first; for each, the numbers of connected pairs and of all pairs at or above it."""
    scores, group = np.unique(-np.asarray(score, float), return_inverse=True)
    hits = np.bincount(group, weights=positive)
    return -scores, np.cumsum(hits), np.cumsum(np.bincount(group)).astype(float)
