"""Links two lists: the best candidates of each row, which of them are connections, and how that agrees with known links.

A pair of row a of list A and row b of list B has the number a * M + b; M is the number of rows of B.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from connection.evaluation.ranking import DEPTH, RECALL_AT, ranking_figures
from connection.model.calibration import Calibration
from connection.search.known_links import NONE_KNOWN, KnownLinks

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

    def __add__(self, other: Candidates) -> Candidates:
        """Returns the pairs of both, one after the other."""
        names = [field.name for field in dataclasses.fields(self)]
        return Candidates(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))

    def __getitem__(self, which: np.ndarray | slice) -> Candidates:
        """Returns some of the pairs, by a mask (P,), by their places or by a slice."""
        return Candidates(self.a[which], self.b[which], self.cosine[which], self.rank[which])

    def numbers(self, width: int) -> np.ndarray:
        """Returns the pairs' numbers, (P,) int64, in a list B of `width` rows."""
        return self.a * width + self.b


def nearest(queries: np.ndarray, corpus: np.ndarray, top: int, left_out: np.ndarray) -> Candidates:
    """Returns the `top` best rows of B for each row of A, without the pairs left out, by row of A and rank.

    queries (N, H), corpus (M, H): vectors of length 1 of A and B. left_out: numbers of pairs that are no candidates; ranks are
    counted without them.
    """
    from connection.search.top_k import top_k  # PyTorch's: an exported model decides without it

    n, m = len(queries), len(corpus)
    missing = np.bincount(left_out // m, minlength=n)  # (N,)
    parts = []
    groups = np.ceil(np.log2(missing + 1)).astype(int)  # rows that need about as many more candidates, together
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        everyone = len(members) == n
        scores, rows = top_k(queries if everyone else queries[members], corpus, min(m, top + int(missing[members].max())))
        a = np.repeat(members, rows.shape[1])  # (rows of A times candidates,)
        keep = ~np.isin(a * m + rows.ravel(), left_out)
        rank = np.cumsum(keep.reshape(rows.shape), axis=1).ravel()
        keep &= rank <= top
        parts.append((a[keep], rows.ravel()[keep].astype(np.int64), scores.ravel()[keep].clip(-1, 1), rank[keep]))
    found = Candidates(*map(np.concatenate, zip(*parts, strict=True)))
    return found if len(parts) == 1 else found[np.lexsort((found.rank, found.a))]


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
        return calibration.threshold, "the model's own, fitted on dev pairs"
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
    return crossing, f"predicted label {(low + high) / 2:g}, the middle of {low:g} to {high:g}"


def above(candidates: Candidates, threshold: float | None) -> np.ndarray:
    """Returns which pairs have the threshold or more, (P,) bool; without a threshold, the best one of each row."""
    return candidates.rank == 1 if threshold is None else candidates.cosine >= threshold


def mutual(candidates: Candidates, backward: Candidates, width: int) -> np.ndarray:
    """Returns which pairs are each other's best, (P,) bool. backward: the best of each row of B, as (b, a). width: M."""
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
    candidates: Candidates, connected: np.ndarray, known: np.ndarray, judged: np.ndarray, width: int, top: int
) -> dict[str, float | int]:
    """Returns precision, recall, F1, MRR@10 and recall@k against known links, in [0, 1], NaN where undefined, and counts.

    candidates: of each judged row of A, its 10 best rows of B or more, and every known link, whatever its rank. connected (P,)
    bool: those that are linked. known: numbers of the known links. judged: the rows of A whose links are known; the others are
    left out. A pair of a judged row that is not known counts as no link. width: M. "best_f1" is that of linking the `top` best
    candidates of each row from "best_threshold" on, the best threshold there is for these known links.
    """
    of_judged = np.isin(candidates.a, judged)
    kept, linked = candidates[of_judged], connected[of_judged]
    relevant = np.isin(kept.numbers(width), known)
    right, called, wanted = int((linked & relevant).sum()), int(linked.sum()), len(np.unique(known))
    order = np.flatnonzero(kept.rank <= top)
    order = order[np.argsort(-kept.cosine[order], kind="stable")]
    f1 = 2 * np.cumsum(relevant[order]) / (np.arange(1, len(order) + 1) + wanted)  # if the first 1, 2, ... were linked
    last = np.append(np.diff(kept.cosine[order]) != 0, True)  # a threshold can't part equal cosines
    best = int(np.argmax(np.where(last, f1, -1))) if len(order) else -1
    ranking = ranking_figures(kept.a, kept.cosine, relevant.astype(float))
    return {
        "rows": len(np.unique(judged)),
        "known": wanted,
        "linked": called,
        "right": right,
        "precision": right / called if called else float("nan"),
        "recall": right / wanted if wanted else float("nan"),
        "f1": 2 * right / (called + wanted) if called + wanted else float("nan"),
        "best_f1": float(f1[best]) if best >= 0 else float("nan"),
        "best_threshold": float(kept.cosine[order][best]) if best >= 0 else float("nan"),
        **{name: ranking[name] for name in RANKING},
    }


@dataclasses.dataclass(frozen=True)
class Links:
    """What `find_links` finds."""

    candidates: Candidates  # of a list with itself, each pair once
    connected: np.ndarray  # (P,) bool
    best: tuple[Candidates, Candidates]  # the best candidate of rows of A as (a, b), and of rows of B as (b, a)
    figures: dict[str, float | int] | None  # against the known links


def find_links(
    a: np.ndarray,
    b: np.ndarray | None,
    top: int,
    threshold: float | None,
    rule: str = "",
    known: KnownLinks = NONE_KNOWN,
    known_as: str = "mark",
) -> Links:
    """Link the rows of two lists by their vectors of length 1, a (N, H) and b (M, H); without b, the rows of a with each other.

    top: candidates of each row of A. threshold: connected from this cosine on; None: the best candidate of each row is. rule:
    "one-to-one" or "mutual" allow some of these links only. known_as: "exclude" leaves the known pairs out, "evaluate" measures
    the links against them. Under one-to-one all pairs are looked at, or beyond `ALL_PAIRS` the `NEAREST` best of each row, and
    a link may rank below `top`.
    """
    corpus = a if b is None else b
    n, m = len(a), len(corpus)

    def both_ways(numbers: np.ndarray) -> np.ndarray:
        return np.union1d(numbers, numbers % m * n + numbers // m) if b is None else numbers

    left_out = np.arange(n) * (n + 1) if b is None else np.zeros(0, np.int64)
    if known_as == "exclude":
        left_out = np.union1d(left_out, both_ways(known.pairs))
    depth = max(top, DEPTH) if known_as == "evaluate" else top
    if rule == "one-to-one":
        depth = m if n * m <= ALL_PAIRS else max(depth, NEAREST)
    forward = nearest(a, corpus, depth, left_out)
    backward = forward if b is None else nearest(b, a, 1, left_out % m * n + left_out // m)
    if rule == "one-to-one":
        connected = one_to_one(forward, (n, m), threshold)
    elif rule == "mutual":
        connected = mutual(forward, backward, m) & above(forward, threshold)
    else:
        connected = above(forward, threshold) & (forward.rank <= top)
    figures = None
    if known_as == "evaluate":
        links = both_ways(known.links)
        more = np.setdiff1d(links, forward.numbers(m))  # they rank below the candidates
        cosine = np.einsum("ph,ph->p", a[more // m], corpus[more % m])
        every = forward + Candidates(more // m, more % m, cosine, np.full(len(more), m))
        judged = np.unique(both_ways(known.pairs) // m)
        figures = link_figures(every, np.append(connected, np.zeros(len(more), bool)), links, judged, m, top)
    listed = (forward.rank <= top) | connected
    best = tuple(side[side.rank == 1] for side in (forward, backward))
    candidates, connected = forward[listed], connected[listed]
    if b is None:
        numbers = both_ways(candidates.numbers(m)[connected])
        candidates = each_once(candidates)
        connected = np.isin(candidates.numbers(m), numbers)
    return Links(candidates, connected, (best[0], best[1]), figures)
