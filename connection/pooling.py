"""Token states -> one vector a sentence (Reimers & Gurevych 2019, arXiv 1908.10084, section 3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def mean_pooling(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean of a sentence's token states. states (N, T, H), attention_mask (N, T) -> (N, H)."""
    mask = attention_mask.unsqueeze(-1).to(states.dtype)  # (N, T, 1)
    return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)


def cls_pooling(states: Tensor, attention_mask: Tensor) -> Tensor:
    """State of the first token, [CLS]. states (N, T, H), attention_mask (N, T) -> (N, H)."""
    return states[:, 0]


def max_pooling(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Largest value of each dimension over a sentence's tokens. states (N, T, H), attention_mask (N, T) -> (N, H)."""
    padding = attention_mask.unsqueeze(-1) == 0  # (N, T, 1)
    return states.masked_fill(padding, -torch.inf).amax(dim=1)


POOLING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mean": mean_pooling, "cls": cls_pooling, "max": max_pooling}
