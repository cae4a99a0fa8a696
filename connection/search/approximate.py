"""Approximate search through faiss: a graph of near neighbours (HNSW, Malkov & Yashunin 2016, arXiv 1603.09320)."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from connection.search.index import GRAPH, Index
from connection.search.top_k import top_k
from connection.system.errors import InputError

LINKS = 32  # of each vector in the graph
LOOKED_AT = 200  # candidates when the graph is made
SAMPLE = 500  # vectors whose neighbours are also found exactly


def open_graph(index: Index) -> Any:
    """Open the graph of an index, or make it. Raises `InputError` with the command that installs faiss, if it is missing."""
    try:
        import faiss
    except ImportError:
        raise InputError("--approximate needs faiss. Type: pip install -r requirements-search.txt") from None
    file = index.folder / GRAPH
    with contextlib.suppress(RuntimeError):
        if not index.new and file.is_file() and not file.is_symlink():
            graph = faiss.read_index(str(file))
            if graph.ntotal == len(index.vectors) and graph.d == index.vectors.shape[1]:
                return graph
    graph = faiss.IndexHNSWFlat(index.vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = LOOKED_AT
    graph.add(np.ascontiguousarray(index.vectors))
    faiss.write_index(graph, str(file))
    return graph


def search_graph(graph: Any, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores and rows of the k nearest, (N, k) each, as `top_k`, but not surely all of them."""
    graph.hnsw.efSearch = max(64, 4 * k)
    scores, rows = graph.search(np.ascontiguousarray(queries, np.float32), k)
    return scores, rows


def recall(graph: Any, index: Index, k: int = 10) -> float:
    """Returns the share of the k nearest of a sample of the corpus's own vectors that the graph finds."""
    rows = np.random.default_rng(0).choice(len(index.vectors), min(SAMPLE, len(index.vectors)), replace=False)
    queries = np.ascontiguousarray(index.vectors[np.sort(rows)])
    _, exact = top_k(queries, index.vectors, k)
    _, found = search_graph(graph, queries, exact.shape[1])
    hits = sum(len(set(one) & set(two)) for one, two in zip(exact.tolist(), found.tolist(), strict=True))
    return hits / exact.size
