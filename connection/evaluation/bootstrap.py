"""Confidence intervals of a correlation, and of the difference between two, by the paired bootstrap over sentence pairs.

A resample draws N of the N pairs with replacement, the same pairs for every model (Efron & Tibshirani 1993, An Introduction to
the Bootstrap: chapter 13 for the percentile interval, 15 and 16 for the achieved significance level).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from connection.data.correlation import pearson, spearman

RESAMPLES = 10_000
FEWEST_RESAMPLES = 1_000
DRAWS = 400_000_000  # in total: above 40,000 pairs fewer resamples are drawn, so that 100,000 pairs take half a minute
DRAWS_AT_ONCE = 150_000  # draws in one block of resamples: a block fits into the processor's cache
FEWEST_PAIRS = 10  # with fewer, all resamples hold the same few pairs, and the interval would be too narrow
KINDS = ("spearman", "pearson")


def resamples_for(pairs: int) -> int:
    """Number of resamples to draw from a data set of `pairs` pairs."""
    return int(np.clip(DRAWS // max(1, pairs), FEWEST_RESAMPLES, RESAMPLES))


def resampled(label: np.ndarray, predictions: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Spearman and Pearson of P predictions (N,) against labels (N,) in each of R resamples, (2, P, R) float64.

    NaN where a correlation is undefined in a resample, and everywhere if there are fewer than `FEWEST_PAIRS` pairs.
    """
    n, count = len(label), resamples_for(len(label))
    values = np.array([label, *predictions], float)  # (1 + P, N)
    found = np.full((2, len(predictions), count), np.nan)
    if n < FEWEST_PAIRS:
        return found
    values[~np.isfinite(values).all(axis=1)] = 0  # non-finite values: every correlation is undefined, as for a constant
    constant = values.min(axis=1) == values.max(axis=1)
    # Centring first preserves the precision of the sums of squares. A constant row becomes 0, so its correlation is NaN.
    centred = np.where(constant[:, None], 0, values - values.mean(axis=1, keepdims=True))
    terms = np.concatenate([centred, centred**2, centred[1:] * centred[0]]).T  # (N, 2 (1 + P) + P)
    ties = [_Ties(row) for row in values]
    # The number of draws of each pair determines a resample. Ranks follow from these numbers without sorting again.
    for start, weights in _draws(n, seed):
        stop = start + len(weights)
        found[1, :, start:stop] = _pearson(weights @ terms / n, len(values), (centred**2).mean(axis=1))
        label_ranks = ties[0].ranks(weights)
        label_square = np.einsum("rn,rn,rn->r", weights, label_ranks, label_ranks)
        for number, tie in enumerate(ties[1:]):
            rank = tie.ranks(weights)
            weighted = weights * rank
            spread = np.sqrt(np.einsum("rn,rn->r", weighted, rank) * label_square)
            with np.errstate(invalid="ignore", divide="ignore"):
                both = np.einsum("rn,rn->r", weighted, label_ranks) / spread
            found[0, number, start:stop] = np.where(spread > 0, both, np.nan)
    return np.clip(found, -1, 1)


def _draws(n: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the resamples of n pairs block by block: the number of the first, and how often it draws each pair, (R, N)."""
    random = np.random.default_rng(seed)
    count, block = resamples_for(n), max(1, DRAWS_AT_ONCE // n)
    for start in range(0, count, block):
        rows = min(block, count - start)
        drawn = random.integers(0, n, size=(rows, n), dtype=np.int32) + n * np.arange(rows)[:, None]
        yield start, np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(float)


def resampled_average_precision(positive: np.ndarray, predictions: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Average precision of P predictions (N,) against `positive` (N,) bool in the resamples of `resampled`, (P, R) float64.

    NaN where a resample has only one class, and everywhere if there are fewer than `FEWEST_PAIRS` pairs.
    """
    n = len(positive)
    found = np.full((len(predictions), resamples_for(n)), np.nan)
    if n < FEWEST_PAIRS or not all(np.isfinite(prediction).all() for prediction in predictions):
        return found
    ties = [_Ties(-np.asarray(prediction, float)) for prediction in predictions]  # highest first
    for start, weights in _draws(n, seed):
        hits_in_all = weights @ positive  # (R,)
        one_class = (hits_in_all == 0) | (hits_in_all == n)
        for number, tie in enumerate(ties):
            by_score = weights[:, tie.order]  # (R, N)
            taken = np.cumsum(by_score, axis=1)[:, tie.ends]  # (R, groups), pairs at each threshold or above it
            hits = np.cumsum(by_score * positive[tie.order], axis=1)[:, tie.ends]
            precision = hits / np.maximum(taken, 1)
            with np.errstate(invalid="ignore", divide="ignore"):
                values = (precision * np.diff(hits, axis=1, prepend=0)).sum(axis=1) / hits_in_all
            found[number, start : start + len(weights)] = np.where(one_class, np.nan, values)
    return found


def resampled_means(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Means of P rows of N values, (P, N), in each of R resamples of the N, the same for all rows: (P, R) float64.

    NaN if there are fewer than `FEWEST_PAIRS` values, or where one is not finite.
    """
    n = values.shape[1]
    found = np.full((len(values), resamples_for(n)), np.nan)
    for start, weights in _draws(n, seed) if n >= FEWEST_PAIRS else ():
        found[:, start : start + len(weights)] = values @ weights.T / n
    return found


class _Ties:
    """Groups of equal values among N values, in ascending order."""

    def __init__(self, values: np.ndarray):
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        self.ends = np.append(np.flatnonzero(new)[1:], len(values)) - 1
        self.group = np.empty(len(values), np.int64)
        self.group[self.order] = np.cumsum(new) - 1

    def ranks(self, weights: np.ndarray) -> np.ndarray:
        """Mean rank of each value minus the mean of all ranks, if value i occurs weights[r, i] times: (R, N) -> (R, N)."""
        last = np.cumsum(np.take(weights, self.order, axis=1), axis=1)  # (R, N), highest rank of each value
        last = last if len(self.ends) == weights.shape[1] else np.take(last, self.ends, axis=1)  # (R, groups)
        middle = last + np.concatenate([np.zeros((len(last), 1)), last[:, :-1]], axis=1)
        middle -= weights.shape[1]
        middle *= 0.5
        return np.take(middle, self.group, axis=1)


def _pearson(means: np.ndarray, values: int, spread: np.ndarray) -> np.ndarray:
    """Correlations (P, R) from each resample's means (R, terms) of values, squares and products; spread: variances of all N."""
    mean, square, product = np.split(means, [values, 2 * values], axis=1)
    variance = square - mean**2
    # If a resample holds only one distinct value, rounding leaves a tiny variance instead of 0.
    variance = np.where(variance > 1e-12 * spread, variance, np.nan)
    return ((product - mean[:, 1:] * mean[:, :1]) / np.sqrt(variance[:, 1:] * variance[:, :1])).T


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """95% percentile interval of a resampled metric (R,), over the resamples in which the metric is defined.

    Two NaN if it is undefined in more than half of them: the others would be a biased selection.
    """
    defined = drawn[np.isfinite(drawn)]
    if len(defined) < len(drawn) / 2 or not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def p_value(difference: np.ndarray) -> float:
    """Two-sided p of a resampled difference (R,): twice the fraction on the opposite side of 0, at least 2 / (R + 1).

    One resample is added to each side, so that p is never 0 (Davison & Hinkley 1997, Bootstrap Methods, section 4.2).
    """
    defined = difference[np.isfinite(difference)]
    if np.isnan(interval(difference)[0]):
        return float("nan")
    sides = [1 + np.count_nonzero(defined <= 0), 1 + np.count_nonzero(defined >= 0)]
    return float(min(1.0, 2 * min(sides) / (len(defined) + 1)))


def intervals(drawn: np.ndarray) -> dict[str, float]:
    """Return {"spearman_low", "spearman_high", "pearson_low", "pearson_high"} of one model's resamples (2, R)."""
    ends = {kind: interval(row) for kind, row in zip(KINDS, drawn, strict=True)}
    return {f"{kind}_{end}": ends[kind][place] for kind in KINDS for place, end in enumerate(("low", "high"))}


def gain(label: np.ndarray, base: np.ndarray, final: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    """Improvement of `final` over `base`, both (N,), against labels (N,); `drawn` (2, 2, R) are their resamples, base first.

    Returns {"spearman", "low", "high", "p"} and, for Pearson, {"pearson", "pearson_low", "pearson_high", "pearson_p"}; "low"
    and "high" are the ends of the 95% interval of the difference.
    """
    found: dict[str, float] = {}
    for kind, measure, row in zip(KINDS, (spearman, pearson), drawn, strict=True):
        low, high = interval(row[1] - row[0])
        start = "" if kind == "spearman" else f"{kind}_"
        found |= {kind: measure(final, label) - measure(base, label)}
        found |= {f"{start}low": low, f"{start}high": high, f"{start}p": p_value(row[1] - row[0])}
    return found
