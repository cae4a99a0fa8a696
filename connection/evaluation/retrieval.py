"""Retrieval figures of pairs without labels: each first sentence searches among all distinct second sentences of its split.

A model's result on N pairs is an array (N, 2): each pair's cosine, and the rank of its second sentence in that search, from 1;
of an unconnected pair (a triplet's negative) the rank is 0. All figures follow from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from connection.data.pair_store import PairStore
from connection.evaluation.ranking import DEPTH, RECALL_AT

if TYPE_CHECKING:
    from torch import Tensor

    from connection.data.tokenization import TokenStore

SCORES_AT_ONCE = 16 << 20  # scores in memory at a time
EQUAL = 1e-6  # cosines that differ by less are equal: float32 has no more


def search_answers(model: Any, store: PairStore, places: np.ndarray | slice, connected: np.ndarray, said: str) -> np.ndarray:
    """Returns cosines and ranks (N, 2) float64 of the store's pairs at `places`, by the vectors of a ConnectionBert.

    connected (N,) bool: the pairs whose second sentence is a right answer. A right answer is ranked behind every wrong one of
    equal cosine. The query's own text, and its other right answers with lower cosines, are not in its way. NaN if the model is
    broken. Texts that the model can't tell apart are one text. said: what the progress bar says.
    """
    import torch  # late: reports read results without it
    from torch.nn.functional import normalize

    one, two = store.index1[places], store.index2[places]
    same, first, text = np.unique(store.same[np.concatenate([one, two])], return_index=True, return_inverse=True)
    sentences = np.concatenate([one, two])[first]  # (S,), one of each text
    query, answer = text[: len(one)], text[len(one) :]
    queries, candidates = np.unique(query), np.unique(answer)

    def encoded(tokens: TokenStore, texts: np.ndarray, side: int) -> Tensor:
        vectors = model.encode_tokens([tokens[sentence] for sentence in sentences[texts]], progress=said, side=side)
        return normalize(model.finish(vectors.float()), dim=-1)

    if store.one_prompt:
        vectors = encoded(store.tokens, np.arange(len(same)), 1)  # (S, H)
        asking, answering = vectors[queries], vectors[candidates]  # (queries, H), (M, H)
    else:
        asking, answering = encoded(store.tokens, queries, 1), encoded(store.tokens2, candidates, 2)
    if not (torch.isfinite(asking).all() and torch.isfinite(answering).all()):
        return np.full((len(one), 2), np.nan)
    column = np.full(len(same), -1)
    column[candidates] = np.arange(len(candidates))
    order = np.argsort(query, kind="stable")
    starts = np.flatnonzero(np.diff(query[order], prepend=-1))  # of each query's pairs
    found = np.zeros((len(one), 2))
    corpus, per_block = answering.T, max(1, SCORES_AT_ONCE // max(1, len(candidates)))
    while len(starts):
        block = starts[starts < starts[0] + per_block]
        starts = starts[len(block) :]
        rows = order[block[0] : starts[0] if len(starts) else None]  # all pairs of some queries
        asked, line = np.unique(query[rows], return_inverse=True)
        scores = (asking[np.searchsorted(queries, asked)] @ corpus).numpy()  # (Q, M)
        found[rows, 0] = scores[line, column[answer[rows]]]
        own = column[asked]
        scores[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
        right = connected[rows]
        scores[line[right], column[answer[rows[right]]]] = -np.inf
        wanted = found[rows[right], 0]
        nearer = (scores[line[right]] >= wanted[:, None].astype(np.float32) - EQUAL).sum(axis=1)  # wrong answers
        found[rows[right], 1] = 1 + nearer + _before(line[right], answer[rows[right]], wanted)
    found[:, 0] = found[:, 0].clip(-1, 1).round(6)
    return found


def _before(query: np.ndarray, answer: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """Returns, of each of n right answers, how many other right answers of its query are nearer, (n,) int64."""
    _, first, pair = np.unique(np.stack([query, answer]), axis=1, return_index=True, return_inverse=True)
    order = np.lexsort((-cosine[first], query[first]))
    start = np.searchsorted(query[first][order], query[first][order])
    before = np.empty(len(first), np.int64)
    before[order] = np.arange(len(first)) - start
    return before[pair.ravel()]


def by_query(query: np.ndarray, pair: np.ndarray, rank: np.ndarray) -> dict[str, np.ndarray]:
    """Returns each query's MRR@10 and recalls, {"mrr", "recall@1", ...}: (Q,) each, in ascending order of the queries.

    query, pair, rank: (N,) each. A right answer that is given twice counts once; pairs of rank 0 do not count. MRR@10 is 1 /
    rank of the first right answer, 0 beyond rank 10; recall@k is the share of the right answers among the first k.
    """
    right = np.flatnonzero(rank > 0)
    _, first = np.unique(np.stack([query[right].astype(np.uint64), pair[right].astype(np.uint64)]), axis=1, return_index=True)
    right = right[first]
    _, group, count = np.unique(query[right], return_inverse=True, return_counts=True)
    best = np.full(len(count), np.inf)
    np.minimum.at(best, group, rank[right])
    found = {"mrr": np.where(best <= DEPTH, 1 / best, 0.0)}
    return found | {
        f"recall@{k}": np.bincount(group, weights=rank[right] <= k, minlength=len(count)) / count for k in RECALL_AT
    }


def retrieval_figures(
    query: np.ndarray, pair: np.ndarray, line: np.ndarray, found: np.ndarray
) -> tuple[float, dict[str, float | int]]:
    """Returns MRR@10, and {"recall@1", "recall@5", "recall@10", "queries"}: means over the queries, and their number.

    query, pair, line: (N,) each; found: a result (N, 2). Pairs of one line are a triplet; triplets add "triplet_accuracy", the
    share of (positive, negative) of one line in which the positive is nearer, and "triplets", the number of these.
    """
    means = {name: float(values.mean()) for name, values in by_query(query, pair, found[:, 1]).items()}
    mrr = means.pop("mrr")
    right = found[:, 1] > 0
    figures: dict[str, float | int] = means | {"queries": len(np.unique(query[right]))}
    if not right.all():
        _, triplet = np.unique(line, return_inverse=True)
        positive = np.full(triplet.max() + 1, np.nan)
        positive[triplet[right]] = found[right, 0]
        nearer = positive[triplet[~right]] > found[~right, 0]
        figures |= {"triplet_accuracy": float(nearer.mean()), "triplets": len(nearer)}
    return mrr, figures
