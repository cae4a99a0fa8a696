"""Dropout masks for all layers of a BERT, drawn together as 16-bit random numbers (speed-up: docs/performance.md)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn


def set_rate(module: nn.Module, rate: float) -> None:
    """Set the dropout rate of a library's module and of all modules in it."""
    part: Any
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate
        elif isinstance(getattr(part, "attention_dropout", None), float):
            part.attention_dropout = rate  # of ModernBERT's attention


class DropoutMasks(NamedTuple):
    """Dropout masks of one layer: factors 0 or 1 / (1 - p); None if p is 0."""

    probabilities: Tensor | None  # (R * A, L, L)
    attention: Tensor | None  # (M, H), attention output
    output: Tensor | None  # (M, H), feed-forward output

    def at(self, places: Tensor) -> DropoutMasks:
        """Return the masks with those of the outputs of these slots alone: (M, H) -> (N, H)."""
        attention, output = (mask if mask is None else mask[places] for mask in self[1:])
        return DropoutMasks(self.probabilities, attention, output)


class Dropout:
    """Draws dropout masks in `dtype` at two `rates`, for hidden states and for attention, from a generator of its own."""

    def __init__(self, rates: tuple[float, float], dtype: torch.dtype, device: torch.device, seed: int):
        self.rates, self.dtype, self.device = rates, dtype, device
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Begin the random numbers of a seed."""
        self.random = np.random.SFC64(seed)  # 4 times as fast as torch's generator on a CPU
        self.cuda_random = torch.Generator(self.device).manual_seed(seed) if self.device.type == "cuda" else None

    def draw(self, layers: int, rows: int, length: int, hidden: int, heads: int) -> tuple[Tensor | None, list[DropoutMasks]]:
        """Masks for the embeddings (M, H) and for each layer. An element is dropped if its 16-bit number is below p * 2^16."""
        wide_count = 1 + 2 * layers
        keep_hidden = self.factors(wide_count * rows * length * hidden, self.rates[0])
        keep_square = self.factors(layers * rows * heads * length * length, self.rates[1])
        wide = keep_hidden.view(wide_count, -1, hidden) if keep_hidden is not None else [None] * wide_count
        squares = keep_square.view(layers, -1, length, length) if keep_square is not None else [None] * layers
        return wide[0], [DropoutMasks(squares[i], wide[1 + 2 * i], wide[2 + 2 * i]) for i in range(layers)]

    def factors(self, count: int, p: float) -> Tensor | None:
        """Draw `count` factors 0 or 1 / (1 - p); None if p is 0."""
        if not p:
            return None
        words = -(-count // 4)  # 64-bit words
        if self.cuda_random is None:
            drawn = torch.from_numpy(self.random.random_raw(words).view(np.int16))
        else:
            drawn = torch.empty(words, dtype=torch.int64, device=self.device)
            drawn = drawn.random_(-(2**63), None, generator=self.cuda_random).view(torch.int16)
        factors = torch.empty(4 * words, dtype=self.dtype, device=self.device)
        # Written directly as numbers: multiplying by a bool tensor takes 5 times as long.
        torch.ge(drawn, round(p * 2**16) - 2**15, out=factors)
        return factors.mul_(1 / (1 - p))[:count]
