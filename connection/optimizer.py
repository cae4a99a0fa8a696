"""The optimizer and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn


def make_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW over all that requires a gradient; biases and LayerNorm are not decayed (Devlin et al. 2018, arXiv 1810.04805, and
    BERT's own code)."""
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    exempt = [weight for name, weight in trained if name.endswith(".bias") or "LayerNorm" in name]
    decayed = [weight for name, weight in trained if not (name.endswith(".bias") or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def linear_schedule(steps: int, warmup_ratio: float) -> Callable[[int], float]:
    """Share of the highest learning rate at each step: a rise from 0 over the warm-up, then a fall to 0 at `steps`."""
    warmup = min(math.ceil(steps * warmup_ratio), steps - 1)  # a run of one step trains at the full rate, not at 0

    def share(step: int) -> float:
        return step / warmup if step < warmup else (steps - step) / max(1, steps - warmup)

    return share
