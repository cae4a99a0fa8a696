"""The k nearest vectors of each vector, exactly: products in blocks, and a selection that costs little beside them."""

from __future__ import annotations

import numpy as np
import torch

SCORES_AT_ONCE = 64 << 20  # scores in memory at a time, 256 MB
QUERIES_AT_ONCE = 1024
GROUP = 32  # scores of which the largest is found in one fast pass


def top_k(queries: np.ndarray, corpus: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k largest products of each query with the corpus, (N, k) float32, and their rows in it, (N, k) int64.

    queries (N, H), corpus (M, H) float32; with vectors of length 1 the products are cosines. Each row is sorted, the largest
    first, equal ones by their place in the corpus. k above M becomes M.
    """
    n, m = len(queries), len(corpus)
    k = min(k, m)
    scores, rows = np.empty((n, k), np.float32), np.empty((n, k), np.int64)
    groups = -(-m // GROUP)
    at_once = max(1, min(QUERIES_AT_ONCE, n, SCORES_AT_ONCE // max(1, m)))
    buffer = torch.full((at_once, groups * GROUP), -torch.inf)  # what is beyond M stays so
    other = torch.from_numpy(corpus).T  # (H, M)
    for start in range(0, n, at_once):
        block = torch.from_numpy(queries[start : start + at_once])  # (Q, H)
        part = buffer[: len(block)]
        torch.mm(block, other, out=part[:, :m])  # (Q, M)
        best, places = _largest(part, k, m)
        order = torch.sort(places, dim=1).indices  # by place, then stably by score
        best, places = best.gather(1, order), places.gather(1, order)
        order = torch.sort(best, dim=1, descending=True, stable=True).indices
        scores[start : start + len(block)] = best.gather(1, order).numpy()
        rows[start : start + len(block)] = places.gather(1, order).numpy()
    return scores, rows


def _largest(scores: torch.Tensor, k: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest scores of each row and their places: (Q, M or more) -> (Q, k) twice.

    Each of them is in one of the k groups with the largest maxima, so that only those groups are looked through.
    """
    grouped = scores.unflatten(1, (-1, GROUP))  # (Q, groups, GROUP)
    if grouped.shape[1] < 2 * k:
        found = scores[:, :m].topk(k)
        return found.values, found.indices
    nearest = grouped.amax(2).topk(k).indices  # (Q, k)
    inside = grouped.gather(1, nearest[..., None].expand(-1, -1, GROUP)).flatten(1)  # (Q, k GROUP)
    found = inside.topk(k)
    return found.values, nearest.gather(1, found.indices // GROUP) * GROUP + found.indices % GROUP
