"""The figures of several seeds: which one is best, their mean and standard deviation."""

from __future__ import annotations

import math
import statistics
from typing import Any

Figures = dict[str, Any]


def best_seed(rows: list[Figures]) -> int:
    """The seed with the highest dev Spearman, the first of those that are equal; an undefined one is never better."""
    values = {int(row["seed"]): _spearman(row, "dev") for row in rows}
    return max(values, key=lambda seed: values[seed] if math.isfinite(values[seed]) else -math.inf)


def over_seeds(rows: list[Figures]) -> Figures:
    """{part: {"mean", "deviation", "seeds"}} of the Spearman correlations of "dev" and "test"; the sample standard deviation,
    None of fewer than two seeds."""
    found = {}
    for part in ("dev", "test"):
        values = [value for row in rows if math.isfinite(value := _spearman(row, part))]
        if values:
            deviation = statistics.stdev(values) if len(values) > 1 else None
            found[part] = {"mean": statistics.fmean(values), "deviation": deviation, "seeds": len(values)}
    return found


def _spearman(row: Figures, part: str) -> float:
    """NaN where it is undefined or the part is missing."""
    value = (row[part] or {}).get("spearman")
    return math.nan if value is None else value
