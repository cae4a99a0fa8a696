"""Links two lists: the best candidates of each row, which of them are connections, and how that agrees with known links.

A pair of row a of list A and row b of list B has the number a * M + b; M is the number of rows of B.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from connection.evaluation.ranking import DEPTH, RECALL_AT, ranking_figures
from connection.model.calibration import Calibration

ALL_PAIRS = 4_000_000  # up to so many pairs of two lists, a one-to-one assignment looks at all of them
NEAREST = 100  # beyond that, at so many candidates of each row
RANKING = (f"mrr@{DEPTH}", *(f"recall@{k}" for k in RECALL_AT))


@dataclasses.dataclass(frozen=True)
class Candidates:
    """P pairs of a row of A and a row of B, each array (P,)."""

    a: np.ndarray  # int64
    b: np.ndarray  # int64
    cosine: np.ndarray  # float32
    rank: np.ndarray  # int64: place of b among the rows of B by their cosine with a, from 1

    def __len__(self) -> int:
        return len(self.a)

    def __getitem__(self, which: np.ndarray) -> Candidates:
        """Returns some of the pairs, by a mask (P,) or by their places."""
        return Candidates(self.a[which], self.b[which], self.cosine[which], self.rank[which])

    def numbers(self, width: int) -> np.ndarray:
        """Returns the pairs' numbers, (P,) int64, in a list B of `width` rows."""
        return self.a * width + self.b


def nearest(
    top_k: Callable[[int], tuple[np.ndarray, np.ndarray]], top: int, shape: tuple[int, int], left_out: np.ndarray
) -> Candidates:
    """Returns each row's `top` best candidates that are not left out, by row and rank.

    top_k: k -> cosines and row numbers of the k best rows of B for each row of A, both (N, k), best first. shape: (N, M).
    left_out: numbers of pairs that are no candidates; ranks are counted without them.
    """
    n, m = shape
    most = int(np.bincount(left_out // m, minlength=1).max()) if len(left_out) else 0
    scores, rows = top_k(min(m, top + most))  # (N, k) twice
    a = np.repeat(np.arange(n, dtype=np.int64), rows.shape[1])  # (N k,)
    keep = ~np.isin(a * m + rows.ravel(), left_out)
    rank = np.cumsum(keep.reshape(rows.shape), axis=1).ravel()
    found = Candidates(a, rows.ravel().astype(np.int64), scores.ravel().clip(-1, 1), rank)
    return found[keep & (rank <= top)]


def each_once(candidates: Candidates) -> Candidates:
    """Returns each pair of a list with itself once, as (smaller, larger row) with the better of its two ranks."""
    a, b = np.minimum(candidates.a, candidates.b), np.maximum(candidates.a, candidates.b)
    order = np.lexsort((candidates.rank, b, a))
    first = np.ones(len(order), bool)
    first[1:] = (a[order][1:] != a[order][:-1]) | (b[order][1:] != b[order][:-1])
    order = order[first]
    once = Candidates(a[order], b[order], candidates.cosine[order], candidates.rank[order])
    return once[np.lexsort((once.rank, once.a))]


def decision_threshold(calibration: Calibration, labels: tuple[float, float] | None) -> tuple[float | None, str]:
    """Returns the cosine from which a model calls a pair connected, and how it is known; None and "" if it is not.

    It is the threshold fitted on dev pairs; for graded labels, where the calibration reaches the middle of the label scale.
    """
    if calibration.threshold is not None:
        return calibration.threshold, "fitted on the model's dev pairs"
    if labels is None or calibration.knots is None:
        return None, ""
    low, high = labels
    cosine, label = (np.array(side) for side in calibration.knots)
    gain = (label - low) / (high - low)  # non-decreasing, on a reversed scale too
    reached = np.flatnonzero(gain >= 0.5)
    if not len(reached):
        return None, ""
    place = int(reached[0])
    crossing = float(cosine[place])
    if place:  # between two knots, the calibration is a straight line
        part = (0.5 - gain[place - 1]) / (gain[place] - gain[place - 1])
        crossing = float(cosine[place - 1] + part * (cosine[place] - cosine[place - 1]))
    return crossing, f"where the predicted label reaches {(low + high) / 2:g}, the middle of the scale {low:g} to {high:g}"


def above(candidates: Candidates, threshold: float | None) -> np.ndarray:
    """Returns which pairs have the threshold or more, (P,) bool; without a threshold, the best one of each row."""
    return candidates.rank == 1 if threshold is None else candidates.cosine >= threshold


def mutual(candidates: Candidates, backward: Candidates, width: int) -> np.ndarray:
    """Returns which pairs are each other's best, (P,) bool. backward: the best of each row of B, as (b, a); width: rows of B."""
    best = backward[backward.rank == 1]
    return (candidates.rank == 1) & np.isin(candidates.numbers(width), best.b * width + best.a)


def one_to_one(candidates: Candidates, shape: tuple[int, int], threshold: float | None) -> np.ndarray:
    """Returns which pairs are in the best assignment, (P,) bool: no row of A or B is in two of them.

    Best is the largest sum of (cosine - threshold): a link counts by how far it is above the threshold, and a row without a
    link counts 0. Without a threshold, cosine + 1 is summed: as good as every row gets a link. shape: (N, M).
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    n, m = shape
    chosen = np.zeros(len(candidates), bool)
    places = np.flatnonzero(candidates.cosine >= (-1 if threshold is None else threshold))
    kept = candidates[places]
    alone = 1e-6  # for scipy, a weight of 0 is no edge; a link at the very threshold is better than none
    worth = kept.cosine.astype(np.float64) - (-1 if threshold is None else threshold) + 2 * alone
    # Row a alone is its edge to a column m + a of its own: with these, every row can be matched.
    rows = np.arange(n)
    weights = np.concatenate([worth, np.full(n, alone)])
    edges = (np.concatenate([kept.a, rows]), np.concatenate([kept.b, m + rows]))
    matched = np.stack(min_weight_full_bipartite_matching(csr_array((weights, edges), shape=(n, m + n)), maximize=True))
    linked = matched[:, matched[1] < m].astype(np.int64)
    chosen[places[np.isin(kept.numbers(m), linked[0] * m + linked[1])]] = True
    return chosen


def link_figures(
    candidates: Candidates, connected: np.ndarray, known: np.ndarray, judged: np.ndarray, width: int
) -> dict[str, float | int]:
    """Returns precision, recall, F1, MRR@10 and recall@k against known links, in [0, 1], NaN where undefined, and counts.

    candidates: of each judged row of A, its 10 best rows of B or more, and every known link, whatever its rank. connected (P,)
    bool: those that are linked. known: numbers of the known links. judged: the rows of A whose links are all known; the other
    rows are left out. A pair of a judged row that is not known counts as no link. M = width.
    """
    kept = candidates[np.isin(candidates.a, judged)]
    numbers, linked = kept.numbers(width), connected[np.isin(candidates.a, judged)]
    relevant = np.isin(numbers, known)
    right, called, wanted = int((linked & relevant).sum()), int(linked.sum()), len(np.unique(known))
    ranking = ranking_figures(kept.a, kept.cosine, relevant.astype(float))
    return {
        "rows": len(np.unique(judged)),
        "known": wanted,
        "linked": called,
        "right": right,
        "precision": right / called if called else float("nan"),
        "recall": right / wanted if wanted else float("nan"),
        "f1": 2 * right / (called + wanted) if called + wanted else float("nan"),
        **{name: ranking[name] for name in RANKING},
    }
