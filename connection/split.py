"""Dev and test pairs split off from one file so that no sentence, not only no pair, stands on both sides."""

from __future__ import annotations

import numpy as np

from connection.store import PairStore

FEWEST = 10  # pairs; a correlation over fewer says nothing


def split_by_sentence(store: PairStore, dev: float, test: float, seed: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Rows of "train", "dev" and "test" (sorted), and remarks for a person.

    Pairs that share a sentence, directly or through other pairs, belong to one connected component of the graph whose nodes are
    sentences and whose edges are pairs; components are dealt out whole, in a random order that follows from the seed. One that
    is larger than what dev or test may hold stays in train. dev and test are the wanted shares of all pairs.
    """
    component, size = np.unique(_components(store), return_inverse=True, return_counts=True)[1:]  # of each pair; pairs in each
    part_of = np.zeros(len(size), np.int8)  # 0 train, 1 dev, 2 test
    order = np.random.default_rng([seed, 1]).permutation(len(size))
    for number, share in ((1, dev), (2, test)):
        room = round(share * len(store))
        fitting = order[(part_of[order] == 0) & (size[order] <= room)]
        taken = fitting[np.cumsum(size[fitting]) <= room]
        part_of[taken] = number
    rows = {name: np.flatnonzero(part_of[component] == number) for number, name in enumerate(("train", "dev", "test"))}
    remarks = []
    largest = size.max() / len(store)
    if largest > max(dev, test) and len(size) > 1:
        remarks.append(f"{100 * largest:.0f}% of the pairs hang together through shared sentences and stay in train")
    for name in ("dev", "test"):
        if len(rows[name]) < FEWEST or len(np.unique(store.label[rows[name]])) < 2:
            if {"dev": dev, "test": test}[name] > 0:
                remarks.append(f"no {name} pairs could be split off: {len(rows[name])} pairs without a sentence of the others")
            rows["train"] = np.sort(np.concatenate([rows["train"], rows.pop(name)]))
    return rows, remarks


def _components(store: PairStore) -> np.ndarray:
    """A number for each pair, (N,), the same for all pairs of a connected component."""
    plain = np.unique(store.hash, return_inverse=True)[1]  # sentences of one plain text are one node
    one, two = plain[store.index1], plain[store.index2]
    root = np.arange(plain.max() + 1)
    while True:  # each round hooks roots onto smaller neighbours and halves the paths: O(log N) rounds
        low = np.minimum(root[one], root[two])
        before = root.copy()
        np.minimum.at(root, root[one], low)
        np.minimum.at(root, root[two], low)
        root = root[root]
        if np.array_equal(root, before):
            return root[one]
