"""The learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable


def make_schedule(name: str, steps: int, warmup_ratio: float) -> Callable[[int], float]:
    """Return the function step -> learning-rate factor: from 0 to 1 during the warm-up, then as `name` says until `steps`.

    "linear" and "cosine" decay to 0, the latter along half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983, equation 5,
    without restarts); "constant" stays at 1.
    """
    warmup = min(math.ceil(steps * warmup_ratio), steps - 1)  # a run of one step trains at the full rate, not at 0

    def lr_scale(step: int) -> float:
        if step < warmup:
            return step / warmup
        left = (steps - step) / max(1, steps - warmup)
        return {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}[name]

    return lr_scale
