"""Permutes N rows at random and computes each place on demand: no list of N numbers, no start-up cost."""

from __future__ import annotations

import numpy as np

ROUNDS = 6


class Permutation:
    """A permutation of 0..n-1 determined by the seed; `permutation[places]` maps any array of places.

    A Feistel network over the next power of 4, applied again to values outside the range (Black & Rogaway 2002, "Ciphers with
    Arbitrary Finite Domains", generalised-Feistel and cycle-walking methods).
    """

    def __init__(self, n: int, seed: list[int]):
        self.n = n
        self.half = np.uint64(max(1, (max(n - 1, 1).bit_length() + 1) // 2))
        self.keys = np.random.default_rng(seed).integers(0, 2**63, size=ROUNDS, dtype=np.uint64)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        values = self._encrypt(np.asarray(places, dtype=np.uint64))
        while (outside := values >= self.n).any():
            values[outside] = self._encrypt(values[outside])
        return values.astype(np.int64)

    def _encrypt(self, values: np.ndarray) -> np.ndarray:
        mask = np.uint64((1 << int(self.half)) - 1)
        left, right = values >> self.half, values & mask
        for key in self.keys:
            mixed = (right ^ key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed >> np.uint64(32)) & mask)
        return (left << self.half) | right
