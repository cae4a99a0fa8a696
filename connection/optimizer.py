"""The optimizer of a run, and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from connection.adamw import AdamW, depth_of
from connection.flat import FlatWeights
from connection.flat_adamw import FlatAdamW


def make_optimizer(module: nn.Module, weights: FlatWeights | None, weight_decay: float, layer_decay: float = 1.0) -> AdamW:
    """AdamW over all of a module's parameters that require a gradient, those in `weights` as flat ones.

    Biases and LayerNorm are not decayed (Devlin et al. 2018, arXiv 1810.04805, and BERT's own code). `layer_decay` d: the
    highest layer learns at the full rate, each one below at d times the rate of the one above it, the embeddings below them
    all (Howard & Ruder 2018, arXiv 1801.06146, section 3.2, "discriminative fine-tuning").
    """
    flat = weights.parameters if weights else set()
    numbers = [depth_of(name, 0) for name, _ in module.named_parameters()]
    shares = [layer_decay ** (max(numbers) - depth) for depth in range(max(numbers) + 1)]  # of the learning rate, by depth
    named = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad and id(weight) not in flat]
    return FlatAdamW(weights, named, weight_decay, shares) if weights else AdamW(named, weight_decay, shares)


def make_schedule(name: str, steps: int, warmup_ratio: float) -> Callable[[int], float]:
    """Share of the highest learning rate at each step: a rise from 0 over the warm-up, then as `name` says until `steps`.

    "linear" and "cosine" fall to 0, the latter along half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983, equation 5,
    without restarts); "constant" stays.
    """
    warmup = min(math.ceil(steps * warmup_ratio), steps - 1)  # a run of one step trains at the full rate, not at 0

    def share(step: int) -> float:
        if step < warmup:
            return step / warmup
        left = (steps - step) / max(1, steps - warmup)
        return {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}[name]

    return share
