"""Predictions x labels -> correlation figures, and the confidence interval of a gain over the base model."""

from __future__ import annotations

import numpy as np

RESAMPLES = 10_000
RESAMPLES_AT_ONCE = 500  # (500, N) counts and ranks: some 30 MB for 1,500 pairs


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of x (N,) and y (N,); NaN where it is undefined, because one of them is constant."""
    weights = np.ones((1, len(x)))
    return float(_weighted_pearson(np.asarray(x, float)[None], np.asarray(y, float)[None], weights)[0])


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation of x (N,) and y (N,), tied values sharing their mean rank; NaN where undefined."""
    weights = np.ones((1, len(x)))
    return float(_weighted_pearson(_weighted_ranks(x, weights), _weighted_ranks(y, weights), weights)[0])


def figures(prediction: np.ndarray, label: np.ndarray) -> dict[str, float | int]:
    """{"spearman", "pearson", "pairs"} of predictions (N,) against labels (N,)."""
    return {"spearman": spearman(prediction, label), "pearson": pearson(prediction, label), "pairs": len(label)}


def spearman_gain(label: np.ndarray, base: np.ndarray, final: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Spearman of `final` minus Spearman of `base` against the same labels, with its 95% paired bootstrap interval.

    All three are (N,). Pairs are drawn with replacement, the same ones for both models, `RESAMPLES` times (Efron &
    Tibshirani 1993, An Introduction to the Bootstrap, chapter 13, percentile interval). Resamples in which a correlation is
    undefined are left out.
    """
    random = np.random.default_rng(seed)
    n = len(label)
    gains = []
    for start in range(0, RESAMPLES, RESAMPLES_AT_ONCE):
        count = min(RESAMPLES_AT_ONCE, RESAMPLES - start)
        # How often each pair is drawn says all about a resample, and ranks follow from it without sorting again.
        weights = random.multinomial(n, np.full(n, 1 / n), size=count).astype(float)  # (R, N)
        label_ranks = _weighted_ranks(label, weights)
        gains.append(
            _weighted_pearson(_weighted_ranks(final, weights), label_ranks, weights)
            - _weighted_pearson(_weighted_ranks(base, weights), label_ranks, weights)
        )
    drawn = np.concatenate(gains)
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return {"spearman": spearman(final, label) - spearman(base, label), "low": float(low), "high": float(high)}


def _weighted_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean rank of each value when value i occurs weights[r, i] times: values (N,), weights (R, N) -> (R, N)."""
    _, group, group_sizes = np.unique(values, return_inverse=True, return_counts=True)  # ascending groups of equal values
    order = np.argsort(group, kind="stable")
    starts = np.concatenate([[0], np.cumsum(group_sizes)[:-1]])
    counts = np.add.reduceat(weights[:, order], starts, axis=1)  # (R, groups)
    ranks = np.cumsum(counts, axis=1) - (counts - 1) / 2  # the mean of the ranks a group takes up
    return ranks[:, group]


def _weighted_pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's correlation with weights, row by row: three (R, N) -> (R,)."""
    total = weights.sum(axis=1, keepdims=True)
    x = x - (weights * x).sum(axis=1, keepdims=True) / total
    y = y - (weights * y).sum(axis=1, keepdims=True) / total
    spread = np.sqrt((weights * x * x).sum(axis=1) * (weights * y * y).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 0, (weights * x * y).sum(axis=1) / spread, np.nan)
