"""Pairs and sentences that stand more than once: within one file, and in two of them.

Texts are compared by the hash of their plain form (connection/sentences.py), a slice of the pairs at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from connection.findings import Finding
from connection.labels import LabelScale
from connection.sentences import pair_keys, parts
from connection.store import PairStore

SLICES = 16  # pairs are grouped by key in so many passes, each in 1/16 of the memory
CONTRADICTION = 0.5  # of the label scale: the same pair with labels further apart contradicts itself


def _keys(store: PairStore) -> np.ndarray:
    """(N,) uint64: equal for pairs of the same texts in either order."""
    keys = np.empty(len(store), np.uint64)
    for part in parts(len(store)):
        keys[part] = pair_keys(store.hash[store.index1[part]], store.hash[store.index2[part]])
    return keys


def repeats(store: PairStore, scale: LabelScale) -> Iterator[Finding]:
    """Duplicates, swapped duplicates and contradictions: pairs of equal key, looked at slice by slice of the keys."""
    keys = _keys(store)
    found: dict[str, list[np.ndarray]] = {"duplicate": [], "swapped-duplicate": [], "contradiction": []}
    example = ""
    for part in range(SLICES):
        rows = np.flatnonzero(keys >> np.uint64(60) == part)
        rows = rows[np.argsort(keys[rows], kind="stable")]  # equal keys together, in file order
        new = np.ones(len(rows), bool)
        new[1:] = keys[rows[1:]] != keys[rows[:-1]]
        if new.all():
            continue
        starts = np.flatnonzero(new)
        group = np.cumsum(new) - 1
        label = store.label[rows]
        spread = np.maximum.reduceat(label, starts) - np.minimum.reduceat(label, starts)
        first = store.hash[store.index1[rows]]
        swapped = ~new & (first != first[starts][group])
        clash = spread > CONTRADICTION * (scale.high - scale.low)
        found["duplicate"].append(rows[~new & ~swapped])
        found["swapped-duplicate"].append(rows[swapped])
        found["contradiction"].append(rows[clash[group]])
        if clash.any() and not example:
            lines = store.line[rows[group == np.flatnonzero(clash)[0]]]
            labels = store.label[rows[group == np.flatnonzero(clash)[0]]]
            example = "e.g. " + ", ".join(f"line {line}: {value:g}" for line, value in zip(lines[:3], labels[:3], strict=True))
    for name, places in found.items():
        rows = np.sort(np.concatenate(places)) if places else np.zeros(0, np.int64)
        if len(rows):
            what = f"{example} (more than {100 * CONTRADICTION:.0f}% of the scale apart)" if name == "contradiction" else ""
            yield Finding.of(name, str(store.path), store.line[rows], what or f"{len(rows):,} pairs stand in the file before")


def between(store: PairStore, held_out: PairStore, of_pairs: str, of_sentences: str) -> Iterator[Finding]:
    """Pairs and sentences of the one file in the other; the findings' names are given."""
    if not len(store) or not len(held_out):
        return
    keys = _keys(held_out)
    common = np.isin(keys, _common(_keys(store), keys))
    if common.any():
        rows = np.flatnonzero(common)
        lines = store.line[np.isin(_keys(store), keys[rows[:1]])][:3].tolist()
        where = f"line {held_out.line[rows[0]]} is line {', '.join(map(str, lines))} of {store.path}"
        yield Finding.of(of_pairs, str(held_out.path), held_out.line[rows], f"e.g. {where}")
    shared = np.isin(held_out.hash, _common(store.hash, held_out.hash))
    rows = np.flatnonzero((shared[held_out.index1] | shared[held_out.index2]) & ~common)
    if len(rows):
        share = f"{100 * len(rows) / len(held_out):.1f}% of the pairs have a sentence that stands in {store.path}"
        yield Finding.of(of_sentences, str(held_out.path), held_out.line[rows], share)


def _common(many: np.ndarray, few: np.ndarray) -> np.ndarray:
    """The values of `few` that are in `many`: a bit table over the low bits lets nearly all of `many` pass by unsorted."""
    bits = max(16, int(len(few) * 16).bit_length())
    mask = np.uint64((1 << min(bits, 30)) - 1)
    table = np.zeros(int(mask) + 1, bool)
    table[few & mask] = True
    candidates = [part[table[part & mask]] for part in np.array_split(many, max(1, len(many) // 1_000_000))]
    return np.intersect1d(few, np.concatenate(candidates))
