"""Compares sentences by 64-bit hashes and numbers them in order of first appearance: tens of millions in little memory.

The probability of a hash collision among S different sentences is about S^2 / 2^65: 1 in 100,000 for S = 20 million.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana and Han
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
ROWS_AT_ONCE = 500_000
PASSES = 16  # as many as the values of 4 bits
BUCKETS = 64  # a merge copies one bucket at a time, so peak memory is little more than the index


def draw_key() -> int:
    """Returns a random key, so that nobody can make two texts in advance whose hashes are equal."""
    return secrets.randbits(64)


def hash_texts(texts: Sequence[str], key: int | None = None) -> np.ndarray:
    """Returns (n,) uint64: SipHash with the key, or without one the same in every process and version."""
    keyed = {} if key is None else {"hash_key": f"{key:016x}"}
    return pd.util.hash_array(np.array(texts, dtype=object), categorize=False, **keyed)


def hash_tokens(flat: np.ndarray, lengths: np.ndarray, key: int) -> np.ndarray:
    """Returns (n,) uint64 of n tokenised sentences: flat (total,) their ids end to end, lengths (n,) of at least 1 each.

    The hash is a sum of one mixed number for each token, its place and the key. Sentences that the model can't tell apart have
    the same ids, whatever characters the tokenizer has dropped.
    """
    if not len(lengths):
        return np.zeros(0, np.uint64)
    starts = np.cumsum(lengths) - lengths
    place = np.arange(len(flat)) - np.repeat(starts, lengths)
    mixed = _mix(flat.astype(np.uint64) + (place.astype(np.uint64) << np.uint64(32)) + np.uint64(key))
    return _mix(np.add.reduceat(mixed, starts) ^ np.uint64(key))


def _mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014): (n,) uint64 -> (n,) uint64; overflow is intended."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def equal_groups(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the places of n of the hashes, (n,) int32, equal ones side by side and in their order, and which of them are the
    first of a group, (n,) bool. Each pass takes the hashes of one value of the top 4 bits, and 1/16 of the memory of them all.
    """
    for top_bits in range(PASSES):
        places = [(np.flatnonzero(hashes[row_slice] >> np.uint64(60) == top_bits) + row_slice.start).astype(np.int32)
                  for row_slice in row_slices(len(hashes))]  # fmt: skip
        place = np.concatenate([*places, np.zeros(0, np.int32)])
        place = place[np.argsort(hashes[place], kind="stable")]
        new = np.ones(len(place), bool)
        new[1:] = hashes[place[1:]] != hashes[place[:-1]]
        yield place, new


def first_equal(hashes: np.ndarray) -> np.ndarray:
    """Returns for each of S hashes the place of the first that is equal, (S,) int32."""
    first = np.arange(len(hashes), dtype=np.int32)
    for place, new in equal_groups(hashes):
        first[place] = place[new][np.cumsum(new) - 1]
    return first


def plain(text: str) -> str:
    """Returns the form in which texts are compared: Unicode NFC, case-folded, white space reduced to single spaces."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(folded.split())


def count_words(text: str) -> int:
    """Counts words between spaces. Each letter of a script without spaces between words counts as a word too."""
    return len(text.split()) + (0 if text.isascii() else len(UNSPACED.findall(text)))


def pair_keys(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Hashes each pair of sentence hashes, the same in either order: two (n,) uint64 -> (n,) uint64."""
    low, high = np.minimum(one, two), np.maximum(one, two)
    mixed = (low ^ (low >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15) + high  # splitmix64's constants; uint64 wraps around
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    return mixed ^ (mixed >> np.uint64(27))


def row_slices(rows: int, at_once: int = ROWS_AT_ONCE) -> list[slice]:
    """Returns slices that cover all rows, so that intermediate results take memory for one slice only."""
    return [slice(start, min(start + at_once, rows)) for start in range(0, rows, at_once)]


class SentenceIndex:
    """Numbers sentence hashes in order of first appearance. Takes 12 bytes per sentence, in sorted buckets."""

    def __init__(self) -> None:
        self.count = 0
        self._hashes = [np.zeros(0, np.uint64) for _ in range(BUCKETS)]
        self._numbers = [np.zeros(0, np.int32) for _ in range(BUCKETS)]

    def add(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the number of each hash, (n,) int32, and the first places in `hashes` of new ones, by ascending number."""
        unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        numbers = np.full(len(unique), -1, np.int32)
        edges = np.searchsorted(unique >> np.uint64(58), np.arange(BUCKETS + 1, dtype=np.uint64))
        places = []
        for bucket in range(BUCKETS):
            bucket_slice = slice(edges[bucket], edges[bucket + 1])
            place = np.searchsorted(self._hashes[bucket], unique[bucket_slice])
            places.append(place)
            known = place < len(self._hashes[bucket])
            known[known] = self._hashes[bucket][place[known]] == unique[bucket_slice][known]
            numbers[bucket_slice][known] = self._numbers[bucket][place[known]]
        new = np.flatnonzero(numbers < 0)
        new = new[np.argsort(first[new], kind="stable")]  # in order of first appearance
        numbers[new] = np.arange(self.count, self.count + len(new), dtype=np.int32)
        self.count += len(new)
        is_new = np.zeros(len(unique), bool)
        is_new[new] = True
        for bucket in range(BUCKETS):
            bucket_slice = slice(edges[bucket], edges[bucket + 1])
            fresh = is_new[bucket_slice]
            if fresh.any():
                place = places[bucket][fresh]
                self._hashes[bucket] = np.insert(self._hashes[bucket], place, unique[bucket_slice][fresh])
                self._numbers[bucket] = np.insert(self._numbers[bucket], place, numbers[bucket_slice][fresh])
        return numbers[inverse], first[new]
