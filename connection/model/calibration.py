"""The calibration saved with a model: a decision threshold and a map from cosine to label, both fitted on dev pairs."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

KEYS = ("threshold", "calibration")


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Threshold and knots, fitted on dev pairs and saved with the model; None if not fitted.

    threshold: pairs with this cosine or more are predicted connected; binary labels only.
    knots: ascending cosines, and their labels on the label scale, non-decreasing; non-increasing on a reversed scale.
    """

    threshold: float | None = None
    knots: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def label(self, cosine: np.ndarray) -> np.ndarray:
        """Labels of cosines (N,), (N,) float64, by linear interpolation between the knots; NaN without knots."""
        return np.interp(cosine, *self.knots) if self.knots else np.full(np.shape(cosine), np.nan)

    def predicted_label(self, cosine: np.ndarray, low: float, high: float) -> np.ndarray:
        """Labels of cosines (N,), (N,) float64; without knots, the labels whose training target is this cosine.

        These rise linearly from `low` at cosine 0 and below to `high` at 1.
        """
        return self.label(cosine) if self.knots else low + np.clip(cosine, 0, 1) * (high - low)

    def as_json(self) -> dict[str, Any]:
        """Return {"threshold", "calibration": {"cosine", "label"}}, without what is not fitted."""
        calibration = {"calibration": {"cosine": self.knots[0], "label": self.knots[1]}} if self.knots else {}
        return ({} if self.threshold is None else {"threshold": self.threshold}) | calibration

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Calibration:
        """Read the result of `as_json`; other keys are ignored. Raises `ValueError` that says what is wrong."""
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
        ends: list[Any] = [content.get(name) for name in ("label_min", "label_max")]
        reverse = bool(_numbers(ends) and ends[0] > ends[1])
        if len(cosine) != len(label) or not rising or label != sorted(label, reverse=reverse):
            how = "cosine ascend, and label descend" if reverse else "ascend"
            raise ValueError(f"calibration: cosine and label should be as long as each other, and {how}")
        return cls(threshold, (tuple(cosine), tuple(label)))


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values)
