"""Pooling: token states -> one vector per sentence. As sentence-transformers' Pooling module, and BERT's own pooler.

Every function takes states (N, T, H) and attention_mask (N, T), 1 for a sentence's tokens, which come first, and 0 for padding;
it returns (N, H). mean, cls, max: Reimers & Gurevych 2019, arXiv 1908.10084, section 3.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def mean_pooling(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean of a sentence's token states. states (N, T, H), attention_mask (N, T) -> (N, H)."""
    mask = attention_mask.unsqueeze(-1).to(states.dtype)  # (N, T, 1)
    return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)


def mean_sqrt_len_pooling(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Sum of a sentence's token states divided by the square root of their number: longer sentences have longer vectors."""
    mask = attention_mask.unsqueeze(-1).to(states.dtype)  # (N, T, 1)
    return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9).sqrt()


def weighted_mean_pooling(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean of a sentence's token states with weights 1, 2, 3, ... (SGPT, Muennighoff 2022, arXiv 2202.08904)."""
    weight = (attention_mask.cumsum(dim=1) * attention_mask).unsqueeze(-1).to(states.dtype)  # (N, T, 1)
    return (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)


def max_pooling(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Largest value of each dimension over a sentence's tokens."""
    padding = attention_mask.unsqueeze(-1) == 0  # (N, T, 1)
    return states.masked_fill(padding, -torch.inf).amax(dim=1)


def cls_pooling(states: Tensor, attention_mask: Tensor) -> Tensor:
    """State of the first token, [CLS]."""
    return states[:, 0]


def last_pooling(states: Tensor, attention_mask: Tensor) -> Tensor:
    """State of a sentence's last token, [SEP]."""
    last = attention_mask.sum(dim=1) - 1  # (N,)
    return states[torch.arange(len(states), device=states.device), last]


POOLING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean_pooling,
    "cls": cls_pooling,
    "max": max_pooling,
    "mean-sqrt-len": mean_sqrt_len_pooling,
    "weighted-mean": weighted_mean_pooling,
    "last": last_pooling,
    "pooler": cls_pooling,  # followed by tanh(W x + b) in ConnectionBert.py, which has the encoder's pooler weights
}
