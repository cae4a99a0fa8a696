"""Which pairs to label next: spread over the predicted labels, or near the decision threshold; no two about the same.

The second is uncertainty sampling (Lewis & Gale 1994). In both, one pair is chosen from each cluster, so that a batch does not
ask the same question twice (Zhdanov 2019, arXiv 1901.05954). What they bring: python -m benchmarks.suggest, docs/using.md.
"""

from __future__ import annotations

import dataclasses

import numpy as np

BANDS = 5  # parts of the label scale
NEAR = 4  # times as many pairs near the threshold as are wanted: one of each cluster of these is chosen
ROUNDS = 10  # of k-means
SEED = 0  # of its first centres
ROWS_AT_ONCE = 4096  # of the distances to all centres


@dataclasses.dataclass(frozen=True)
class Pool:
    """N pairs without a label: texts numbered `a` in one list, `b` in the other, and what a model makes of them."""

    a: np.ndarray  # (N,) int64
    b: np.ndarray  # (N,) int64
    cosine: np.ndarray  # (N,) float
    predicted: np.ndarray  # (N,) float, the predicted label as a share of the scale: 0 no connection, 1 full connection
    vectors_a: np.ndarray  # of list A, of length 1: (texts, H) float32
    vectors_b: np.ndarray  # of list B likewise

    def __len__(self) -> int:
        return len(self.a)

    def only(self, rows: np.ndarray) -> Pool:
        return dataclasses.replace(
            self, a=self.a[rows], b=self.b[rows], cosine=self.cosine[rows], predicted=self.predicted[rows]
        )

    def topics(self, rows: np.ndarray) -> np.ndarray:
        """What pairs are about: the means of their two vectors, rows (R,) -> (R, H)."""
        return (self.vectors_a[self.a[rows]] + self.vectors_b[self.b[rows]]) / 2


def near_threshold(pool: Pool, count: int, threshold: float) -> np.ndarray:
    """Choose the pairs that the model is least sure of: (count,) rows, or all, the nearest to the threshold first.

    Of the pairs nearest to the threshold, no more than an equal share is of one text of list A. They are grouped by what they
    are about, and of each group the nearest is chosen.
    """
    distance = np.abs(pool.cosine - threshold)
    order = np.argsort(distance, kind="stable")
    share = -(-NEAR * count // max(1, len(np.unique(pool.a))))  # rounded up
    near = order[_place_in_group(pool.a[order]) < share][: NEAR * count]
    if len(near) < count:
        near = order[: NEAR * count]
    chosen = near[one_per_cluster(pool.topics(near), count, distance[near])]
    return chosen[np.argsort(distance[chosen], kind="stable")]


def over_scale(pool: Pool, count: int) -> np.ndarray:
    """Choose as many pairs of each band of predicted labels, one of each group: (count,) rows, or all.

    A band with fewer pairs than its share leaves the rest to the others.
    """
    band = np.minimum((pool.predicted * BANDS).astype(int), BANDS - 1)
    random = np.random.default_rng(SEED)
    chosen: list[int] = []
    for place, number in enumerate(np.argsort(np.bincount(band, minlength=BANDS))):  # the smallest first
        rows = np.flatnonzero(band == number)
        share = (count - len(chosen)) // (BANDS - place)
        if share:
            chosen += rows[one_per_cluster(pool.topics(rows), share, random.random(len(rows)))].tolist()
    return np.array(chosen, int)


def one_per_cluster(features: np.ndarray, count: int, rank: np.ndarray) -> np.ndarray:
    """Group N features (N, D) by k-means into `count` clusters and choose of each the one of the lowest rank (N,).

    Returns (count,) rows; all N, if they are no more. Where equal features leave clusters empty, the next by rank follow.
    """
    if count >= len(features):
        return np.arange(len(features))
    random = np.random.default_rng(SEED)
    centres = features[random.choice(len(features), count, replace=False)]
    for _ in range(ROUNDS):
        cluster = _nearest(features, centres)
        sums, sizes = np.zeros_like(centres), np.bincount(cluster, minlength=count)
        np.add.at(sums, cluster, features)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    cluster = _nearest(features, centres)
    order = np.argsort(rank, kind="stable")
    place = _place_in_group(cluster[order])
    return order[np.argsort(place > 0, kind="stable")][:count]  # the first of each cluster, then the others


def _nearest(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The number of the nearest centre of each feature: (N, D), (K, D) -> (N,)."""
    squares = (centres**2).sum(axis=1)  # (K,)
    starts = range(0, len(features), ROWS_AT_ONCE)
    return np.concatenate([(squares - 2 * features[row : row + ROWS_AT_ONCE] @ centres.T).argmin(axis=1) for row in starts])


def _place_in_group(group: np.ndarray) -> np.ndarray:
    """How many of the same group come before each: (N,) int -> (N,) int."""
    order = np.argsort(group, kind="stable")
    _, start, size = np.unique(group[order], return_index=True, return_counts=True)
    place = np.empty(len(group), np.int64)
    place[order] = np.arange(len(group)) - np.repeat(start, size)
    return place
