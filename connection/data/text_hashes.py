"""Sentences as 64-bit hashes: compared, and numbered in order of first appearance, tens of millions in little memory.

Two different sentences share a hash with a probability of about S^2 / 2^65: 1 in 100,000 for S = 20 million.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import pandas as pd

# Thai, Lao, Burmese, Khmer, kana and Han
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
ROWS_AT_ONCE = 500_000
BUCKETS = 64  # a merge copies one bucket at a time, so the peak is little more than what is kept


def hash_texts(texts: Sequence[str]) -> np.ndarray:
    """(n,) uint64, the same in every process and version (SipHash with a fixed key)."""
    return pd.util.hash_array(np.array(texts, dtype=object), categorize=False)


def plain(text: str) -> str:
    """What texts are compared by: Unicode NFC, case folded, white space folded to single spaces."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(folded.split())


def count_words(text: str) -> int:
    """Words between spaces; each letter of a script that has no spaces between words counts as a word too."""
    return len(text.split()) + (0 if text.isascii() else len(UNSPACED.findall(text)))


def pair_keys(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """A hash for each pair of sentence hashes, the same in either order: two (n,) uint64 -> (n,) uint64."""
    low, high = np.minimum(one, two), np.maximum(one, two)
    mixed = (low ^ (low >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15) + high  # splitmix64's constants; wraps around
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(27))


def row_slices(rows: int, at_once: int = ROWS_AT_ONCE) -> list[slice]:
    """Slices over all rows, so that what is computed for a row takes memory for a part of them only."""
    return [slice(start, min(start + at_once, rows)) for start in range(0, rows, at_once)]


class SentenceIndex:
    """Numbers for sentence hashes in order of first appearance: 12 bytes a sentence, in sorted buckets."""

    def __init__(self) -> None:
        self.count = 0
        self._hashes = [np.zeros(0, np.uint64) for _ in range(BUCKETS)]
        self._numbers = [np.zeros(0, np.int32) for _ in range(BUCKETS)]

    def add(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The number of each hash, (n,) int32; and where in `hashes` the new ones first stand, by ascending number."""
        unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        numbers = np.full(len(unique), -1, np.int32)
        edges = np.searchsorted(unique >> np.uint64(58), np.arange(BUCKETS + 1, dtype=np.uint64))
        places = []
        for bucket in range(BUCKETS):
            part = slice(edges[bucket], edges[bucket + 1])
            place = np.searchsorted(self._hashes[bucket], unique[part])
            places.append(place)
            known = place < len(self._hashes[bucket])
            known[known] = self._hashes[bucket][place[known]] == unique[part][known]
            numbers[part][known] = self._numbers[bucket][place[known]]
        new = np.flatnonzero(numbers < 0)
        new = new[np.argsort(first[new], kind="stable")]  # numbered as they appear
        numbers[new] = np.arange(self.count, self.count + len(new), dtype=np.int32)
        self.count += len(new)
        is_new = np.zeros(len(unique), bool)
        is_new[new] = True
        for bucket in range(BUCKETS):
            part = slice(edges[bucket], edges[bucket + 1])
            fresh = is_new[part]
            if fresh.any():
                place = places[bucket][fresh]
                self._hashes[bucket] = np.insert(self._hashes[bucket], place, unique[part][fresh])
                self._numbers[bucket] = np.insert(self._numbers[bucket], place, numbers[part][fresh])
        return numbers[inverse], first[new]
