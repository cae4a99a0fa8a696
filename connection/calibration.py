"""From cosines to a person's own units: the threshold and the label that a cosine stands for, fitted on dev pairs."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from connection.binary import best_threshold
from connection.labels import LabelScale

BINS = 10
KEYS = ("threshold", "calibration")


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What was fitted on dev pairs and travels with a model; None where nothing was.

    threshold: pairs of this cosine or more are called connected; of binary labels only.
    knots: cosines, ascending, and the labels they stand for, not descending, on the label scale.
    """

    threshold: float | None = None
    knots: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    @classmethod
    def of(cls, cosine: np.ndarray, label: np.ndarray, scale: LabelScale) -> Fitted:
        """Fitted to cosines (N,) and labels (N,); nothing is fitted to fewer than two distinct labels."""
        if len(label) < 2 or label.min() == label.max():
            return cls()
        threshold = best_threshold(cosine, label == scale.high) if is_binary(label, scale) else None
        return cls(threshold, isotonic(cosine, label))

    def label(self, cosine: np.ndarray) -> np.ndarray:
        """The labels that cosines (N,) stand for, (N,) float64: straight lines between the knots; NaN without them."""
        return np.interp(cosine, *self.knots) if self.knots else np.full(np.shape(cosine), np.nan)

    def as_json(self) -> dict[str, Any]:
        """{"threshold", "calibration": {"cosine", "label"}}, without what is not fitted."""
        calibration = {"calibration": {"cosine": self.knots[0], "label": self.knots[1]}} if self.knots else {}
        return ({} if self.threshold is None else {"threshold": self.threshold}) | calibration

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Fitted:
        """The inverse of `as_json`; other keys are let be. Raises `ValueError` that says what is wrong."""
        threshold, given = (content.get(key) for key in KEYS)
        if threshold is not None and not _numbers([threshold]):
            raise ValueError("threshold should be a number")
        if given is None:
            return cls(threshold)
        sides: list[Any] = [given.get(name) for name in ("cosine", "label")] if isinstance(given, dict) else []
        if len(sides) != 2 or not all(isinstance(side, list) and side and _numbers(side) for side in sides):
            raise ValueError("calibration should be two lists of numbers, cosine and label")
        cosine, label = sides
        rising = all(a < b for a, b in itertools.pairwise(cosine))
        if len(cosine) != len(label) or not rising or label != sorted(label):
            raise ValueError("calibration: cosine and label should be as long as each other, and ascend")
        return cls(threshold, (tuple(cosine), tuple(label)))


def is_binary(label: np.ndarray, scale: LabelScale) -> bool:
    """Whether all labels (N,) are the two ends of the scale."""
    return bool(np.isin(label, np.array([scale.low, scale.high], label.dtype)).all())


def isotonic(cosine: np.ndarray, label: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The knots of the non-descending step function of the cosine with the least squared error from the labels, both (N,).

    Pool adjacent violators (Barlow, Bartholomew, Bremner & Brunk 1972; Zadrozny & Elkan 2002 for calibration): equal cosines
    are one block; while a block's mean label is not above the one before, the two become one. The knots are the first and last
    cosine of each block. Linear time: pooling with whole arrays would take as many passes as the data are unkind.
    """
    values, group = np.unique(np.asarray(cosine, float), return_inverse=True)
    sums, counts = np.bincount(group, weights=label), np.bincount(group)
    blocks: list[tuple[float, int, int]] = []  # sum of labels, how many, place of the first cosine
    for place, (total, count) in enumerate(zip(sums.tolist(), counts.tolist(), strict=True)):
        start = place
        while blocks and blocks[-1][0] * count >= total * blocks[-1][1]:  # the means, without dividing
            before = blocks.pop()
            total, count, start = before[0] + total, before[1] + count, before[2]
        blocks.append((total, count, start))
    first = np.array([start for _, _, start in blocks])
    last = np.append(first[1:], len(values)) - 1
    mean = np.array([total / count for total, count, _ in blocks])
    mean = np.maximum.accumulate(mean)  # rounding may put one mean a last digit below the one before
    keep = np.column_stack([np.ones(len(first), bool), last > first]).ravel()  # a block of one cosine has one knot
    places = np.column_stack([first, last]).ravel()[keep]
    return tuple(values[places].tolist()), tuple(np.repeat(mean, 2)[keep].tolist())


def calibration_curve(cosine: np.ndarray, predicted: np.ndarray, label: np.ndarray) -> list[dict[str, float]]:
    """What pairs of like cosine are labelled: `BINS` bins of about as many pairs, by ascending cosine; all three (N,).

    Each bin is {"pairs", "cosine", "predicted", "label"}, the last three means over its pairs. Equal cosines share a bin. Of
    labels 0 and 1 the mean label is the share of connected pairs, and the predicted one its calibrated probability.
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


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values)
