"""Pooling: token states -> one vector per sentence. As sentence-transformers' Pooling module, and BERT's own pooler.

Every function takes states (N, T, H) and attention_mask (N, T), 1 for the tokens that are pooled and 0 for padding after them
and for a prompt before them; it returns (N, H). mean, cls, max: Reimers & Gurevych 2019, arXiv 1908.10084, section 3.
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
    """Mean of a sentence's token states with their positions, from 1, as weights (SGPT, Muennighoff 2022, arXiv 2202.08904)."""
    position = torch.arange(1, states.shape[1] + 1, device=states.device)
    weight = (position * attention_mask).unsqueeze(-1).to(states.dtype)  # (N, T, 1)
    return (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)


def max_pooling(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Largest value of each dimension over a sentence's tokens."""
    padding = attention_mask.unsqueeze(-1) == 0  # (N, T, 1)
    return states.masked_fill(padding, -torch.inf).amax(dim=1)


def cls_pooling(states: Tensor, attention_mask: Tensor) -> Tensor:
    """State of the first token: [CLS], unless a prompt is left out."""
    return states[torch.arange(states.shape[0], device=states.device), attention_mask.argmax(dim=1)]


def last_pooling(states: Tensor, attention_mask: Tensor) -> Tensor:
    """State of a sentence's last token, [SEP]."""
    last = states.shape[1] - 1 - attention_mask.flip(1).argmax(dim=1)  # (N,)
    return states[torch.arange(states.shape[0], device=states.device), last]


POOLING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean_pooling,
    "cls": cls_pooling,
    "max": max_pooling,
    "mean-sqrt-len": mean_sqrt_len_pooling,
    "weighted-mean": weighted_mean_pooling,
    "last": last_pooling,
    "pooler": cls_pooling,  # followed by tanh(W x + b) in ConnectionBert.py, which has the encoder's pooler weights
}


def pool(pooling: str, states: Tensor, attention_mask: Tensor) -> Tensor:
    """The vectors of a pooling, or of several joined by "+", one after the other: (N, T, H) -> (N, H times their number)."""
    return torch.cat([POOLING[name](states, attention_mask) for name in pooling.split("+")], dim=1)


def without_prompt(attention_mask: Tensor, prompt: int) -> Tensor:
    """The mask (N, T) without the first `prompt` tokens of each sentence, but always with its last one."""
    position = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    last = attention_mask.sum(dim=1, keepdim=True) - 1  # (N, 1)
    return attention_mask * (position >= torch.clamp(last, max=prompt))
