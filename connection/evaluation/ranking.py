"""Ranking metrics for one-to-many data: several labelled candidates (second sentences) for one query (first sentence).

Candidates with equal scores have no order: every metric is its expectation over all orders of the ties (McSherry & Najork 2008,
Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores). It depends neither on chance
nor on the order of the rows.
"""

from __future__ import annotations

import numpy as np

DEPTH = 10  # cut-off rank of MRR and nDCG
RECALL_AT = (1, 5, 10)
RELEVANT = 0.5  # gain from which a candidate is relevant: the middle of the label scale
ONE_TO_MANY = 0.5  # data are one-to-many if at least this fraction of the pairs has a query with several candidates


def is_one_to_many(query: np.ndarray) -> bool:
    """Whether at least half of the pairs share their first sentence, query (N,), with another pair."""
    _, group, count = np.unique(query, return_inverse=True, return_counts=True)
    return bool(len(query) and (count[group] > 1).mean() >= ONE_TO_MANY)


def ranking_figures(query: np.ndarray, score: np.ndarray, gain: np.ndarray) -> dict[str, float | int]:
    """Means over queries of MRR@10, nDCG@10, MAP and recall@k, all in [0, 1], and the counts behind them.

    query (N,) is the index of each pair's first sentence; score (N,) ranks its candidates, highest first; gain (N,) in [0, 1]
    is the position of the label on its scale. nDCG sums the gains with a discount of 1 / log2(1 + rank) (Järvelin & Kekäläinen
    2002); for the other metrics a candidate is relevant if its gain is at least `RELEVANT`. Queries with one candidate or
    without a relevant one are left out ("without_relevant" counts the latter); nDCG keeps those with any gain above 0. NaN if
    no query is left. "tied" counts the candidates that share their score with another candidate of the same query.
    """
    _, query, candidates = np.unique(query, return_inverse=True, return_counts=True)
    several = (candidates > 1)[query]
    order = np.lexsort((-score[several], query[several]))
    query, score, gain = query[several][order], score[several][order], gain[several][order]
    tie, tie_start = _runs((query[1:] != query[:-1]) | (score[1:] != score[:-1]), len(query))  # per candidate
    query, query_start = _runs(query[1:] != query[:-1], len(query))
    total = int(query[-1]) + 1 if len(query) else 0  # queries with several candidates
    relevant = (gain >= RELEVANT).astype(float)
    size = np.bincount(tie)[tie]
    found = np.bincount(tie, weights=relevant)[tie]  # relevant candidates in the tie
    rank = np.arange(len(query)) - query_start + 1  # of each place in its query, from 1
    place = rank + query_start - 1 - tie_start  # of each place in its tie, from 0
    before = np.cumsum(relevant) - relevant
    above = before[tie_start] - before[query_start]  # relevant candidates above the tie

    def by_query(values: np.ndarray) -> np.ndarray:
        return np.bincount(query, weights=values, minlength=total)

    wanted = by_query(relevant)
    chance = found / size  # probability that a place of the tie holds a relevant candidate
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = above + place * np.where(size > 1, (found - 1) / (size - 1), 0)  # relevant candidates above one
        precision = by_query(chance * (expected + 1) / rank) / wanted
        recall = {k: by_query(chance * (rank <= k)) / wanted for k in RECALL_AT}
        discount = (rank <= DEPTH) / np.log2(1 + rank)
        ideal = gain[np.lexsort((-gain, query))]
        ndcg = by_query(np.bincount(tie, weights=gain)[tie] / size * discount) / by_query(ideal * discount)
    first = np.where(above == 0, _first(place, size, found), 0)  # probability: first relevant candidate is here
    reciprocal = by_query(first * (rank <= DEPTH) / rank)
    some = wanted > 0
    figures: dict[str, float | int] = {
        "mrr@10": _mean(reciprocal[some]),
        "ndcg@10": _mean(ndcg[by_query(gain) > 0]),
        "map": _mean(precision[some]),
        **{f"recall@{k}": _mean(values[some]) for k, values in recall.items()},
    }
    counts = {"queries": int(some.sum()), "without_relevant": total - int(some.sum()), "tied": int((size > 1).sum())}
    return figures | counts


def _runs(new: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Number of each element's run, and the index where that run starts. new[i]: element i + 1 starts a run."""
    starts = np.concatenate([[0], np.flatnonzero(new) + 1]) if length else np.zeros(0, np.int64)
    number = np.repeat(np.arange(len(starts)), np.diff(starts, append=length))
    return number, starts[number]


def _first(place: np.ndarray, size: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Probability that place j of a tie of t candidates, r of them relevant, holds the first relevant one; all (N,).

    The product over i < j of (t - r - i) / (t - i), the probability that none is earlier, times r / (t - j). Correct only for
    j < `DEPTH`; other places have no effect.
    """
    none_yet = np.ones(len(place))
    for earlier in range(DEPTH - 1):
        step = np.maximum(size - found - earlier, 0) / np.maximum(size - earlier, 1)
        none_yet = np.where(earlier < place, none_yet * step, none_yet)
    return none_yet * found / (size - place)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
