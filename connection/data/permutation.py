"""Permutes N rows at random and computes each place on demand: no list of N numbers, no start-up cost."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

ROUNDS = 6
BLOCK = 1024  # groups between two of which the first place is known
AT_ONCE = 64 * BLOCK  # groups gone through at a time


class Permutation:
    """A permutation of 0..n-1 determined by the seed; `permutation[places]` maps any array of places.

    A Feistel network over the next power of 4, applied again to values outside the range (Black & Rogaway 2002, "Ciphers with
    Arbitrary Finite Domains", generalised-Feistel and cycle-walking methods).
    """

    def __init__(self, n: int, seed: list[int]):
        self.n, self.keys = n, _draw_keys(seed)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        places = np.asarray(places)
        return _permuted(places, np.full(len(places), self.n), self.keys, np.zeros(len(places), np.uint64))


class Groups(NamedTuple):
    """n places in G groups: 12 bytes per place at most."""

    members: np.ndarray  # (n,) int32, those of one group after another
    starts: np.ndarray  # (G + 1,) int64, where in `members` each group begins, and the end


class GroupedPermutation:
    """A permutation in which the places of a group follow one another: the groups are in random order, and each group's places.

    Used as `Permutation`. To begin with, all groups are gone through once; kept is one number for each `BLOCK` of them.
    """

    def __init__(self, groups: Groups, seed: list[int]):
        self.groups, self.order, self.keys = groups, Permutation(len(groups.starts) - 1, seed), _draw_keys([*seed, 1])
        slices = range(0, self.order.n, AT_ONCE)
        sizes = [np.add.reduceat(some := self._groups(start, AT_ONCE)[2], np.arange(0, len(some), BLOCK)) for start in slices]
        self.first = np.cumsum(np.concatenate([[0], *sizes]))  # place of each block's first group

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        places = np.asarray(places)
        found = np.empty(len(places), np.int64)
        blocks = np.searchsorted(self.first, places, side="right") - 1
        for block in np.unique(blocks):
            here = blocks == block
            groups, starts, sizes = self._groups(block * BLOCK, BLOCK)
            ends = self.first[block] + np.cumsum(sizes)
            of = np.searchsorted(ends, places[here], side="right")
            salt = (groups[of].astype(np.uint64) + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)  # overflow is intended
            within = _permuted(places[here] - (ends - sizes)[of], sizes[of], self.keys, salt)
            found[here] = self.groups.members[starts[of] + within]
        return found

    def _groups(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns `count` groups in their order, fewer at the end; where their members begin; and their sizes."""
        groups = self.order[np.arange(first, min(first + count, self.order.n))]
        starts = self.groups.starts[groups]
        return groups, starts, self.groups.starts[groups + 1] - starts


Order = Permutation | GroupedPermutation


class Shuffle:
    """Random orders of 0..n-1. keys: (n,) >= 0, places with the same one follow one another; None: any order."""

    def __init__(self, n: int, keys: np.ndarray | None = None):
        self.n, self.keys = n, keys

    def __call__(self, seed: list[int]) -> Order:
        """Returns the order that follows from this seed."""
        return Permutation(self.n, seed) if self.keys is None else GroupedPermutation(self._groups, seed)

    @cached_property
    def _groups(self) -> Groups:
        assert self.keys is not None
        members = np.argsort(self.keys, kind="stable").astype(np.int32)
        return Groups(members, np.flatnonzero(np.diff(self.keys[members], prepend=-1, append=-1)))


def _draw_keys(seed: list[int]) -> np.ndarray:
    keys: np.ndarray = np.random.default_rng(seed).integers(0, 2**63, size=ROUNDS, dtype=np.uint64)
    return keys


def _permuted(values: np.ndarray, n: np.ndarray, keys: np.ndarray, salt: np.ndarray) -> np.ndarray:
    """Returns the place of each of `values` among the `n` that it is one of. All are (k,); another salt, another order."""
    half = np.maximum(1, (np.frexp(np.maximum(n - 1, 1))[1] + 1) // 2).astype(np.uint64)  # bits
    values, n = _encrypt(values.astype(np.uint64), half, keys, salt), n.astype(np.uint64)
    while (outside := values >= n).any():
        values[outside] = _encrypt(values[outside], half[outside], keys, salt[outside])
    return values.astype(np.int64)


def _encrypt(values: Any, half: np.ndarray, keys: np.ndarray, salt: np.ndarray) -> Any:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        mixed = (right ^ key ^ salt) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        left, right = right, left ^ ((mixed >> np.uint64(32)) & mask)
    return (left << half) | right
