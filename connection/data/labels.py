"""Converts label cells to numbers, and finds the scale that maps them to target cosines in [0, 1]."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Sequence

import numpy as np

from connection.system.errors import InputError

WORDS = {
    "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0, "duplicate": 1.0, "not duplicate": 0.0, "not": 0.0, "not_duplicate": 0.0,
    "y": 1.0, "n": 0.0, "match": 1.0, "no match": 0.0,
}  # fmt: skip
# Common scales, the narrowest first. The first one with both ends seen is taken, else the first one that fits.
SCALES = ((0, 1), (-1, 1), (1, 4), (0, 4), (1, 5), (0, 5), (1, 10), (0, 10), (0, 100))
RARE = ((1, 4), (0, 4))  # taken only if both ends were seen: a small sample of a 0-5 file may end at 4
COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")  # the comma may be a decimal comma
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")  # the comma may also separate thousands


@dataclasses.dataclass(frozen=True)
class LabelScale:
    """Label scale: `low` means no connection (target 0), `high` means full connection (target 1)."""

    low: float
    high: float
    kind: str  # "binary" or "graded"
    how: str  # "declared", or how it was found in the training file

    def target(self, labels: np.ndarray) -> np.ndarray:
        """Maps labels (N,) linearly to [0, 1]: (N,) float32."""
        return ((labels - self.low) / (self.high - self.low)).astype(np.float32)

    def __str__(self) -> str:
        return f"{self.kind}, {self.low:g} (no connection) to {self.high:g} (full connection), {self.how}"


def parse_label(cell: str, comma: bool = False) -> float:
    """Converts a cell to a number. A word such as yes or duplicate is 1 or 0; anything else is NaN.

    comma: the whole column has decimal commas, so "2,5" is 2.5.
    """
    if comma and COMMA.fullmatch(cell.strip()):
        cell = cell.replace(",", ".")
    with contextlib.suppress(ValueError):
        if "_" not in cell:  # Python reads 4_5 as 45
            return float(cell)
    return WORDS.get(" ".join(cell.lower().split()), math.nan)


def is_label(cell: str) -> bool:
    """Returns whether a cell looks like a label, valid or not."""
    plain = cell.strip().lower()
    return plain == "nan" or not math.isnan(parse_label(plain)) or bool(COMMA.fullmatch(plain))


def find_scale(low: float | None, high: float | None, seen: Sequence[float] | np.ndarray) -> LabelScale:
    """Returns the scale declared by `low` and `high`, or found from the distinct finite labels `seen` in the training file.

    Raises `InputError` if the low end is not below the high end.
    """
    least, most = (float(min(seen)), float(max(seen))) if len(seen) else (0.0, 1.0)
    kind = "binary" if len(seen) <= 2 and {float(label) for label in seen} <= {0.0, 1.0} else "graded"
    how = f"taken from the training file, which has {least:g} to {most:g}"
    if low not in (None, 0) or high not in (None, 1):
        kind = "graded"  # 0 and 1 are then two labels of a wider scale
    if low is not None and high is not None:
        how, start, end = "declared", low, high
    else:
        fits = [ends for ends in SCALES if ends == (least, most)]
        fits += [ends for ends in SCALES if ends[0] <= least and most <= ends[1] and ends not in RARE]
        fits = [ends for ends in fits if low in (None, ends[0]) and high in (None, ends[1])]
        start, end = fits[0] if fits else (least if low is None else low, most if high is None else high)
    if not start < end:
        raise InputError(f"a label scale from {start:g} to {end:g}: give --label-min and --label-max, the first one smaller")
    return LabelScale(start, end, kind, how)
