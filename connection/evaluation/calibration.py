"""Fits a model's calibration on dev pairs, and computes its curve on other pairs."""

from __future__ import annotations

import numpy as np

from connection.data.labels import LabelScale
from connection.evaluation.binary import best_threshold
from connection.model.calibration import Calibration

BINS = 10


def fit_calibration(cosine: np.ndarray, label: np.ndarray, scale: LabelScale) -> Calibration:
    """Fit the calibration of cosines (N,) to labels (N,).

    It is empty if there are fewer than two distinct labels, or no unconnected pairs but the chosen ones of triplets.
    """
    if scale.is_retrieval or len(label) < 2 or label.min() == label.max():
        return Calibration()
    threshold = best_threshold(cosine, label == scale.high) if is_binary(label, scale) else None
    cosines, labels = isotonic(cosine, scale.rising(label))
    return Calibration(threshold, (cosines, tuple(scale.rising(np.array(labels)).tolist())))


def is_binary(label: np.ndarray, scale: LabelScale) -> bool:
    """Whether every label (N,) is one of the two ends of the scale."""
    return bool(np.isin(label, np.array([scale.low, scale.high], label.dtype)).all())


def isotonic(cosine: np.ndarray, label: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots of the isotonic regression of labels (N,) on cosines (N,): a non-decreasing step function, least squares.

    Pool adjacent violators (Barlow, Bartholomew, Bremner & Brunk 1972; Zadrozny & Elkan 2002 for calibration): equal cosines
    form a block; while a block's mean label is not above that of the previous block, the two are merged. The knots are the
    first and last cosine of each block. Linear time: array operations would need many passes on unfavourable data.
    """
    values, group = np.unique(np.asarray(cosine, float), return_inverse=True)
    sums, counts = np.bincount(group, weights=label), np.bincount(group)
    blocks: list[tuple[float, int, int]] = []  # sum of labels, number of pairs, index of the first cosine
    for place, (total, count) in enumerate(zip(sums.tolist(), counts.tolist(), strict=True)):
        start = place
        while blocks and blocks[-1][0] * count >= total * blocks[-1][1]:  # compares means without division
            before = blocks.pop()
            total, count, start = before[0] + total, before[1] + count, before[2]
        blocks.append((total, count, start))
    first = np.array([start for _, _, start in blocks])
    last = np.append(first[1:], len(values)) - 1
    mean = np.array([total / count for total, count, _ in blocks])
    mean = np.maximum.accumulate(mean)  # rounding may leave a mean slightly below the previous one
    keep = np.column_stack([np.ones(len(first), bool), last > first]).ravel()  # a block of one cosine has one knot
    places = np.column_stack([first, last]).ravel()[keep]
    return tuple(values[places].tolist()), tuple(np.repeat(mean, 2)[keep].tolist())


def calibration_curve(cosine: np.ndarray, predicted: np.ndarray, label: np.ndarray) -> list[dict[str, float]]:
    """Mean labels of pairs with similar cosines: `BINS` bins of about equal size, by ascending cosine. All arguments: (N,).

    Each bin is {"pairs", "cosine", "predicted", "label"}; the last three are means over its pairs. Equal cosines share a bin.
    For labels 0 and 1, "label" is the fraction of connected pairs, and "predicted" the calibrated probability.
    """
    if not len(label):
        return []
    edges = np.unique(np.quantile(cosine, np.linspace(0, 1, BINS + 1)[1:-1]))
    place = np.searchsorted(edges, cosine)
    count = np.bincount(place)
    columns = {"cosine": cosine, "predicted": predicted, "label": label}
    sums = {name: np.bincount(place, weights=values) for name, values in columns.items()}
    return [
        {"pairs": int(count[bin])} | {name: float(sums[name][bin] / count[bin]) for name in columns}
        for bin in np.flatnonzero(count)
    ]
