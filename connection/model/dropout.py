"""Dropout's factors for all layers of a BERT, from one draw of 16-bit numbers (what that brings: docs/performance.md)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class DropoutMasks(NamedTuple):
    """Dropout of one layer: factors 0 or 1 / (1 - p), None where p is 0."""

    probabilities: Tensor | None  # (R * A, L, L)
    attention: Tensor | None  # (M, H)
    output: Tensor | None  # (M, H)


class Dropout:
    """Bernoulli factors at two `rates`, of hidden states and of attention, in `dtype`; its generator is nobody else's."""

    def __init__(self, rates: tuple[float, float], dtype: torch.dtype, device: torch.device, seed: int):
        self.rates, self.dtype, self.device = rates, dtype, device
        self.random = np.random.SFC64(seed)  # on a CPU 4 times as fast as torch's generator
        self.cuda_random = torch.Generator(device).manual_seed(seed) if device.type == "cuda" else None

    def draw(self, layers: int, rows: int, length: int, hidden: int, heads: int) -> tuple[Tensor | None, list[DropoutMasks]]:
        """The factors of the embeddings (M, H), and of each layer: a 16-bit number below p * 2^16 drops."""
        wide_count = 1 + 2 * layers
        keep_hidden = self.factors(wide_count * rows * length * hidden, self.rates[0])
        keep_square = self.factors(layers * rows * heads * length * length, self.rates[1])
        wide = keep_hidden.view(wide_count, -1, hidden) if keep_hidden is not None else [None] * wide_count
        squares = keep_square.view(layers, -1, length, length) if keep_square is not None else [None] * layers
        return wide[0], [DropoutMasks(squares[i], wide[1 + 2 * i], wide[2 + 2 * i]) for i in range(layers)]

    def factors(self, count: int, p: float) -> Tensor | None:
        """`count` factors 0 or 1 / (1 - p), None where p is 0."""
        if not p:
            return None
        words = -(-count // 4)  # of 64 bits
        if self.cuda_random is None:
            drawn = torch.from_numpy(self.random.random_raw(words).view(np.int16))
        else:
            drawn = torch.empty(words, dtype=torch.int64, device=self.device)
            drawn = drawn.random_(-(2**63), None, generator=self.cuda_random).view(torch.int16)
        factors = torch.empty(4 * words, dtype=self.dtype, device=self.device)
        # Written as numbers at once: a tensor of bool would take 5 times as long to multiply with.
        torch.ge(drawn, round(p * 2**16) - 2**15, out=factors)
        return factors.mul_(1 / (1 - p))[:count]
