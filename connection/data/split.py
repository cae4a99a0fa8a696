"""Divides one file into train, dev and test, or into folds, so that no sentence (where that can be) is in two of them."""

from __future__ import annotations

import numpy as np

from connection.data.labels import POSITIVES, TRIPLETS
from connection.data.pair_store import PairStore
from connection.data.text_hashes import first_equal, pair_keys, row_slices
from connection.system.errors import InputError

FEWEST = 10  # pairs; a correlation over fewer says nothing
AT_ONCE = 1 << 17  # pairs or sentences in one slice, which bounds memory


def training_splits(files: int) -> list[str]:
    """Returns the names of the parts that are trained on: "train", and "train-2", "train-3" ... where there are more files."""
    return ["train", *(f"train-{number}" for number in range(2, files + 1))][:files]


def is_training(split: str) -> bool:
    """Returns whether a part is trained on: see `training_splits`."""
    return split == "train" or split.startswith("train-")


def split_by_sentence(
    store: PairStore, dev: float, test: float, seed: int, kind: str = ""
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns the rows of "train", "dev" and "test" (int32, sorted), and remarks for the user.

    `dev` and `test` are fractions of all pairs. In the graph whose nodes are sentences and whose edges are pairs, a connected
    component stays in one split. Dev and test take components that still fit, in a random order determined by the seed; the
    others stay in train. Where all hang together, as with each requirement beside each of a few tests, the pairs of one first
    sentence, or of one second sentence, stay in one split instead.
    Raises `InputError` if fewer than `FEWEST` pairs would be left for training.
    """
    wanted = {"dev": _wanted(dev, len(store)), "test": _wanted(test, len(store))}
    retrieval = kind in (POSITIVES, TRIPLETS)
    rows, remarks, unfit = _split(store, _components(store), store.index1, wanted, seed, retrieval)
    if any(name in unfit for name, room in wanted.items() if room >= FEWEST):
        root = _components(store, _both_ways(store))
        sides = (("first", store.index1, "second"), ("second", store.index2, "first"))
        for side, index, other in sides[: 1 if kind == TRIPLETS else 2]:
            again, _, still = _split(store, root, index, wanted, seed, retrieval)
            if not still:
                rows, unfit = again, {}
                remarks = [
                    "too many pairs hang together through shared sentences, so they are split by their "
                    f"{side} sentence: dev and test pairs share {other} sentences with the training pairs"
                ]
                break
    remarks += [f"no {name} pairs are split off: {why}" for name, why in unfit.items()]
    if len(rows) > 1 and len(rows["train"]) < FEWEST:
        raise InputError(
            f"--dev-fraction {dev:g} and --test-fraction {test:g} leave {len(rows['train'])} of {len(store)} pairs "
            f"in {store.path} for training, fewer than {FEWEST}: give smaller ones"
        )
    return rows, remarks


def rows_apart(store: PairStore, held_out: PairStore, rows: np.ndarray) -> np.ndarray:
    """Returns the rows of `store` (int32, ascending) without any sentence of these `rows` of another file.

    The negatives of a triplet go with it.
    """
    seen = np.unique([held_out.index1[rows], held_out.index2[rows]])
    known = np.isin(store.hash, held_out.hash[seen]) | np.isin(store.token_hashes(held_out.key), held_out.token_hash[seen])
    shared = known[store.index1] | known[store.index2]
    return np.flatnonzero(~np.isin(store.line, store.line[shared])).astype(np.int32)


def _split(
    store: PairStore, root: np.ndarray, index: np.ndarray, wanted: dict[str, int], seed: int, retrieval: bool
) -> tuple[dict[str, np.ndarray], list[str], dict[str, str]]:
    """Returns the rows of each split, remarks, and why a wanted split is not there.

    root: (S,) of each sentence, index: (N,) the sentence of each pair that decides; pairs of one root stay together.
    """
    split_of, largest = _deal(store, root, index, list(wanted.values()), seed)
    number = np.empty(len(store), np.int8)  # of each pair's split
    for row_slice in row_slices(len(store), AT_ONCE):
        number[row_slice] = split_of[root[index[row_slice]]]
    remarks = []
    if largest == len(store) > 1:
        remarks.append("all pairs hang together through shared sentences: none can be split off")
    elif largest > max(wanted.values()):
        remarks.append(
            f"{100 * largest / len(store):.0f}% of the pairs hang together through shared sentences and stay in train"
        )
    rows, unfit = {}, {}
    for place, (name, room) in enumerate(wanted.items(), 1):
        rows[name] = np.flatnonzero(number == place).astype(np.int32)
        if why := _unfit(store, rows[name], room, retrieval):
            if room:
                unfit[name] = why
            number[rows.pop(name)] = 0
    return {"train": np.flatnonzero(number == 0).astype(np.int32), **rows}, remarks, unfit


def _wanted(fraction: float, pairs: int) -> int:
    """Returns how many pairs to split off: at least `FEWEST`, where that leaves at least half of a small file for training."""
    wanted = round(fraction * pairs)
    return max(wanted, FEWEST) if wanted and pairs >= 4 * FEWEST else wanted


def folds_by_sentence(store: PairStore, folds: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Returns the fold of each pair, (N,) int64 in 0..folds - 1, and remarks for the user. Folds have about equal sizes.

    Whole connected components (see `split_by_sentence`) go to one fold each, in a random order determined by the seed. A
    component larger than half a fold is divided by first sentence, so that pairs with the same first sentence share a fold;
    if that is not enough, by pair.
    Raises `InputError` if a fold would have fewer than `FEWEST` pairs.
    """
    keys = {
        "sentence": _components(store)[store.index1],
        "first sentence": first_equal(store.same)[store.index1],
        "pair": pair_keys(store.same[store.index1], store.same[store.index2]),
    }
    unit, units = np.empty(len(store), np.int64), 0  # pairs of one unit go to the same fold
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
    fold_of[order] = (np.cumsum(size) - (size + 1) // 2) * folds // max(1, len(store))  # by the middle of each unit
    fold = fold_of[unit]
    if np.bincount(fold, minlength=folds).min() < FEWEST:
        raise InputError(
            f"{store.path} has {len(store)} pairs: {folds} folds of them leave one with fewer than {FEWEST}, too few to tell "
            "which label a cosine means. Give more pairs, or fewer --folds."
        )
    return fold, remarks


def _unfit(store: PairStore, rows: np.ndarray, wanted: int, retrieval: bool) -> str:
    """Returns why these rows can't be dev or test pairs, or '' if they can. retrieval: one single label will do."""
    if wanted < FEWEST:
        return f"{wanted} of {len(store)} are wanted, and a figure over fewer than {FEWEST} says nothing"
    if len(rows) < FEWEST:
        return f"only {len(rows)} of the {wanted} that are wanted share no sentence with others"
    if retrieval:
        return ""
    labels = np.unique(store.label[rows])
    return f"all {len(rows)} of them would have the label {labels[0]:g}" if len(labels) < 2 else ""


def _deal(store: PairStore, root: np.ndarray, index: np.ndarray, rooms: list[int], seed: int) -> tuple[np.ndarray, int]:
    """Returns the split of each root, (S,) int8: 0 train, 1 first room, 2 second; and the pairs in the largest component."""
    counts = np.zeros(len(root), np.int32)
    for row_slice in row_slices(len(store), AT_ONCE):
        np.add.at(counts, root[index[row_slice]], 1)
    order = np.flatnonzero(counts).astype(np.int32)
    np.random.default_rng([seed, 1]).shuffle(order)
    size = counts[order]
    del counts
    split_of = np.zeros(len(root), np.int8)
    for number, room in enumerate(rooms, 1):
        for row_slice in row_slices(len(order), AT_ONCE):
            start = row_slice.start
            while room and start < row_slice.stop:
                rest = slice(start, row_slice.stop)
                fitting = start + np.flatnonzero((split_of[order[rest]] == 0) & (size[rest] <= room))
                total = np.cumsum(size[fitting])
                taken = int(np.searchsorted(total, room, side="right"))
                split_of[order[fitting[:taken]]] = number
                room -= int(total[taken - 1]) if taken else 0
                # Go on behind the first component that does not fit.
                start = int(fitting[taken]) + 1 if taken < len(fitting) else row_slice.stop
    return split_of, int(size.max(initial=0))


def _both_ways(store: PairStore) -> np.ndarray:
    """Returns the rows of pairs that are there in both orders of their sentences, which must not be divided."""
    one, two = store.same[store.index1], store.same[store.index2]
    keys = pair_keys(one, two)
    return np.flatnonzero(np.isin(keys, np.intersect1d(keys[one < two], keys[one > two])))


def _components(store: PairStore, linked: np.ndarray | None = None) -> np.ndarray:
    """Returns a root for each sentence, (S,) int32: one sentence that represents its connected component.

    linked: the rows whose sentences are connected; None for all.
    """
    root = first_equal(store.same)
    for row_slice in row_slices(len(store) if linked is None else len(linked), AT_ONCE):
        pairs = row_slice if linked is None else linked[row_slice]
        one, two = root[store.index1[pairs]], root[store.index2[pairs]]
        while True:
            one, two = _top(root, one), _top(root, two)
            apart = one != two
            if not apart.any():
                break
            one, two = one[apart], two[apart]
            high = np.maximum(one, two)
            np.minimum.at(root, high, np.minimum(one, two))  # only roots are linked, to smaller ones: no cycles
            while (root[high] != root[root[high]]).any():  # path halving: a long chain takes few rounds
                root[high] = root[root[high]]
    for row_slice in row_slices(len(root), AT_ONCE):
        root[row_slice] = _top(root, root[row_slice])
    return root


def _top(root: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    while not np.array_equal(above := root[nodes], nodes):
        nodes = above
    return nodes
