"""Dev and test pairs, or folds, split off from one file so that no sentence, not only no pair, stands on both sides."""

from __future__ import annotations

import numpy as np

from connection.data.pair_store import PairStore
from connection.data.text_hashes import pair_keys, row_slices
from connection.system.errors import InputError

FEWEST = 10  # pairs; a correlation over fewer says nothing
AT_ONCE = 1 << 17  # pairs or sentences: what is computed for them takes memory for so many only
SLICES = 16  # sentences are grouped by hash in so many passes


def split_by_sentence(store: PairStore, dev: float, test: float, seed: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Rows of "train", "dev" and "test" (int32, sorted), and remarks for a person.

    Pairs that share a sentence, directly or through other pairs, belong to one connected component of the graph whose nodes are
    sentences and whose edges are pairs; components are dealt out whole, in a random order that follows from the seed, each that
    still fits. What is larger than dev or test may hold stays in train. dev and test are the wanted shares of all pairs.
    Raises `InputError` where hardly a pair would be left for training.
    """
    root = _components(store)
    wanted = {"dev": round(dev * len(store)), "test": round(test * len(store))}
    part_of, largest = _deal(store, root, list(wanted.values()), seed)
    number = np.empty(len(store), np.int8)  # of each pair's part
    for part in row_slices(len(store), AT_ONCE):
        number[part] = part_of[root[store.index1[part]]]
    del root, part_of
    remarks = []
    if largest == len(store) > 1:
        remarks.append("all pairs hang together through shared sentences: none can be split off")
    elif largest > max(wanted.values()):
        remarks.append(
            f"{100 * largest / len(store):.0f}% of the pairs hang together through shared sentences and stay in train"
        )
    rows = {}
    for place, (name, room) in enumerate(wanted.items(), 1):
        rows[name] = np.flatnonzero(number == place).astype(np.int32)
        if why := _unfit(store, rows[name], room):
            if room:
                remarks.append(f"no {name} pairs are split off: {why}")
            number[rows.pop(name)] = 0
    rows = {"train": np.flatnonzero(number == 0).astype(np.int32), **rows}
    if len(rows) > 1 and len(rows["train"]) < FEWEST:
        raise InputError(
            f"--dev-fraction {dev:g} and --test-fraction {test:g} leave {len(rows['train'])} of {len(store)} pairs "
            f"in {store.path} for training, fewer than {FEWEST}: give smaller ones"
        )
    return rows, remarks


def folds_by_sentence(store: PairStore, folds: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """The fold of each pair, (N,) int64 in 0..folds - 1, of about as many pairs each, and remarks for a person.

    Connected components (see `split_by_sentence`) are dealt out whole, in a random order that follows from the seed. One of
    more than half a fold is taken apart: by first sentence, which then stands in one fold alone; by pair, where that is not
    enough.
    Raises `InputError` where a fold would have fewer than `FEWEST` pairs.
    """
    keys = {
        "sentence": _components(store)[store.index1],
        "first sentence": _same_texts(store.hash)[store.index1],
        "pair": pair_keys(store.hash[store.index1], store.hash[store.index2]),
    }
    unit, units = np.empty(len(store), np.int64), 0  # which pairs are dealt out together
    left, remarks = np.arange(len(store)), list[str]()
    for name, key in keys.items():
        _, place, count = np.unique(key[left], return_inverse=True, return_counts=True)
        fits = (count[place] <= len(store) / (2 * folds)) | (name == "pair")
        unit[left[fits]] = units + place[fits]
        units += len(count)
        if name != "sentence" and fits.any():
            share = 100 * fits.sum() / len(store)
            remarks.append(f"{share:.0f}% of the pairs hang together through shared sentences and are dealt out by {name}")
        left = left[~fits]
    order = np.random.default_rng([seed, 2]).permutation(units)
    size = np.bincount(unit, minlength=units)[order]
    fold_of = np.empty(units, np.int64)
    fold_of[order] = (np.cumsum(size) - (size + 1) // 2) * folds // max(1, len(store))  # by the middle of each
    fold = fold_of[unit]
    if np.bincount(fold, minlength=folds).min() < FEWEST:
        raise InputError(
            f"{store.path} has {len(store)} pairs: {folds} folds of them leave one with fewer than {FEWEST}, too few to say "
            "what a cosine stands for. Give more pairs, or fewer --folds."
        )
    return fold, remarks


def _unfit(store: PairStore, rows: np.ndarray, wanted: int) -> str:
    """Why these rows can't be dev or test pairs; '' where they can."""
    if wanted < FEWEST:
        return f"{wanted} of {len(store)} are wanted, and a correlation over fewer than {FEWEST} says nothing"
    if len(rows) < FEWEST:
        return f"only {len(rows)} of the {wanted} that are wanted share no sentence with others"
    labels = np.unique(store.label[rows])
    return f"all {len(rows)} of them would have the label {labels[0]:g}" if len(labels) < 2 else ""


def _deal(store: PairStore, root: np.ndarray, rooms: list[int], seed: int) -> tuple[np.ndarray, int]:
    """Of each component's root (S,) int8: 0 train, 1 the first room, 2 the second; and the pairs of the largest component."""
    counts = np.zeros(len(root), np.int32)
    for part in row_slices(len(store), AT_ONCE):
        np.add.at(counts, root[store.index1[part]], 1)
    order = np.flatnonzero(counts).astype(np.int32)
    np.random.default_rng([seed, 1]).shuffle(order)
    size = counts[order]
    del counts
    part_of = np.zeros(len(root), np.int8)
    for number, room in enumerate(rooms, 1):
        for part in row_slices(len(order), AT_ONCE):
            start = part.start
            while room and start < part.stop:
                rest = slice(start, part.stop)
                fitting = start + np.flatnonzero((part_of[order[rest]] == 0) & (size[rest] <= room))
                total = np.cumsum(size[fitting])
                taken = int(np.searchsorted(total, room, side="right"))
                part_of[order[fitting[:taken]]] = number
                room -= int(total[taken - 1]) if taken else 0
                start = int(fitting[taken]) + 1 if taken < len(fitting) else part.stop  # beyond the first that does not fit
    return part_of, int(size.max(initial=0))


def _components(store: PairStore) -> np.ndarray:
    """For each sentence, (S,) int32, a sentence that is the same for all of a connected component."""
    root = _same_texts(store.hash)
    for part in row_slices(len(store), AT_ONCE):
        one, two = root[store.index1[part]], root[store.index2[part]]
        while True:
            one, two = _top(root, one), _top(root, two)
            apart = one != two
            if not apart.any():
                break
            one, two = one[apart], two[apart]
            high = np.maximum(one, two)
            np.minimum.at(root, high, np.minimum(one, two))  # roots only are hooked, onto smaller ones: no cycles
            while (root[high] != root[root[high]]).any():  # halves the paths, so that a long chain takes few rounds
                root[high] = root[root[high]]
    for part in row_slices(len(root), AT_ONCE):
        root[part] = _top(root, root[part])
    return root


def _top(root: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    while not np.array_equal(above := root[nodes], nodes):
        nodes = above
    return nodes


def _same_texts(hashes: np.ndarray) -> np.ndarray:
    """For each sentence, (S,) int32, the first one of the same plain text."""
    first = np.arange(len(hashes), dtype=np.int32)
    for number in range(SLICES):
        places = [(np.flatnonzero(hashes[part] >> np.uint64(60) == number) + part.start).astype(np.int32)
                  for part in row_slices(len(hashes), AT_ONCE)]  # fmt: skip
        place = np.concatenate([*places, np.zeros(0, np.int32)])
        place = place[np.argsort(hashes[place], kind="stable")]
        new = np.ones(len(place), bool)
        new[1:] = hashes[place[1:]] != hashes[place[:-1]]
        first[place] = place[new][np.cumsum(new) - 1]
    return first
