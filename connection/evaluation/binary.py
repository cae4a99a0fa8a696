"""Figures of binary labels: how well scores tell connected pairs from others, with and without a threshold.

Every function takes scores (N,) and `positive` (N,) bool. Equal scores are never told apart: they stand on one side of every
threshold together. A figure that is undefined, of labels of one class, say, is NaN.
"""

from __future__ import annotations

import numpy as np

from connection.evaluation.correlation import ranks


def average_precision(score: np.ndarray, positive: np.ndarray) -> float:
    """Sum over thresholds of precision x the recall gained there (Manning, Raghavan & Schütze 2008, section 8.4), in [0, 1]."""
    if not 0 < positive.sum() < len(positive):
        return float("nan")
    _, hits, taken = _by_threshold(score, positive)
    return float((hits / taken) @ np.diff(hits, prepend=0) / hits[-1])


def roc_auc(score: np.ndarray, positive: np.ndarray) -> float:
    """The chance that a connected pair scores above another one, a tie counting half (Mann-Whitney's U), in [0, 1]."""
    ones = int(positive.sum())
    zeros = len(positive) - ones
    if not ones or not zeros:
        return float("nan")
    return float((ranks(score)[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def best_threshold(score: np.ndarray, positive: np.ndarray) -> float:
    """The threshold with the greatest F1: pairs of this score or more are taken for connected. NaN for labels of one class.

    It stands midway between two scores that were seen. Of several as good the highest is taken, which calls fewest connected.
    """
    if not 0 < positive.sum() < len(positive):
        return float("nan")
    scores, hits, taken = _by_threshold(score, positive)
    best = int(np.argmax(2 * hits / (taken + hits[-1])))
    return float((scores[best] + scores[best + 1]) / 2) if best + 1 < len(scores) else float(scores[best])


def at_threshold(score: np.ndarray, positive: np.ndarray, threshold: float) -> dict[str, float]:
    """{"f1", "precision", "recall", "mcc", "accuracy"} of calling scores of `threshold` or more connected.

    mcc is Matthews' correlation coefficient (1975) in [-1, 1]. Precision is NaN where no pair is called connected, recall where
    none is, F1 where neither is, mcc where one class is missing among labels or calls.
    """
    if np.isnan(threshold):
        return dict.fromkeys(("f1", "precision", "recall", "mcc", "accuracy"), float("nan"))
    called = score >= threshold
    hits, taken, ones = (float(which.sum()) for which in (called & positive, called, positive))
    misses, alarms = ones - hits, taken - hits
    rest = len(score) - hits - misses - alarms  # neither called nor connected
    margins = float(np.sqrt(taken) * np.sqrt(ones) * np.sqrt(rest + alarms) * np.sqrt(rest + misses))
    return {
        "f1": _share(2 * hits, taken + ones),
        "precision": _share(hits, taken),
        "recall": _share(hits, ones),
        "mcc": _share(hits * rest - misses * alarms, margins),
        "accuracy": _share(hits + rest, len(score)),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _by_threshold(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The D distinct scores, highest first; and at each as threshold the connected pairs, and all pairs, from it upwards."""
    scores, group = np.unique(-np.asarray(score, float), return_inverse=True)
    hits = np.bincount(group, weights=positive)
    return -scores, np.cumsum(hits), np.cumsum(np.bincount(group)).astype(float)
