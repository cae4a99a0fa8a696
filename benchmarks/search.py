"""Measures exact search against its matrix products and against faiss, on the same vectors, queries and threads.

    python -m benchmarks.search                      100,000 x 100,000 x 384, and 1,000,000 vectors with some queries
    python -m benchmarks.search --graph              also the approximate search, and what it finds

Products, top_k and faiss's IndexFlatIP take turns on blocks of queries; a ratio is of one round. The vectors are random, of
length 1: the cost does not depend on what they say. The memory is what the process has at most beyond the vectors.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch

from benchmarks.turns import machine, spread
from connection.search.index import Index
from connection.search.top_k import QUERIES_AT_ONCE, SCORES_AT_ONCE, top_k
from connection.system.devices import peak_memory_bytes

SIZE, ROUNDS, K = 384, 5, 10


def unit_vectors(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, SIZE), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def products(queries: np.ndarray, corpus: np.ndarray) -> None:
    """All products in the blocks that top_k makes of them, and nothing else: the ceiling."""
    at_once = max(1, min(QUERIES_AT_ONCE, len(queries), SCORES_AT_ONCE // len(corpus)))
    buffer = torch.empty(at_once, len(corpus))
    other = torch.from_numpy(corpus).T
    for start in range(0, len(queries), at_once):
        block = torch.from_numpy(queries[start : start + at_once])
        torch.mm(block, other, out=buffer[: len(block)])


def take_turns(corpus: np.ndarray, queries: int, k: int) -> None:
    """Print the time of each contender per million products of vectors, and the ratios of its rounds."""
    flat = faiss.IndexFlatIP(SIZE)
    flat.add(corpus)
    contenders: dict[str, Callable[[np.ndarray], Any]] = {
        "products": lambda block: products(block, corpus),
        f"top_k, k = {k}": lambda block: top_k(block, corpus, k),
        "faiss.IndexFlatIP": lambda block: flat.search(block, k),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(ROUNDS + 1):  # the first one warms up
        block = unit_vectors(queries, 10 + number)
        for name, work in contenders.items():
            clock = time.perf_counter()
            work(block)
            seconds[name] += [time.perf_counter() - clock] * bool(number)
    ours, theirs = top_k(block, corpus, k), flat.search(block, k)
    same = np.mean([len(set(a) & set(b)) / k for a, b in zip(ours[1].tolist(), theirs[1].tolist(), strict=True)])
    print(f"\n{queries:,} queries, {len(corpus):,} x {SIZE}; same {k} nearest as faiss: {100 * same:.3f}%")
    for name, times in seconds.items():
        ratios = [time / other for time, other in zip(times, seconds["products"], strict=True)]
        print(
            f"  {name:20} {statistics.median(times):8.3f} s  {statistics.median(ratios):.2f} ({spread(ratios)}) x the products"
        )


def graph(corpus: np.ndarray) -> None:
    """Print how long the graph takes to make and to search, and what it finds."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from connection.search.approximate import open_graph, recall, search_graph

    with TemporaryDirectory() as folder:
        index = Index(Path(folder), corpus, np.arange(len(corpus)), len(corpus), 0)
        clock = time.perf_counter()
        made = open_graph(index)
        seconds = time.perf_counter() - clock
        print(f"\ngraph of {len(corpus):,}: made in {seconds:.0f} s, recall@10 {100 * recall(made, index):.1f}%")
        queries = unit_vectors(1000, 5)
        clock = time.perf_counter()
        search_graph(made, queries, K)
        print(f"  1,000 queries in {time.perf_counter() - clock:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=4096, help="in a round")
    parser.add_argument("--whole", action="store_true", help="also all of the corpus against itself, once")
    parser.add_argument("--large", type=int, default=1_000_000, help="vectors of the second corpus; 0: none")
    parser.add_argument("--graph", action="store_true")
    given = parser.parse_args()
    faiss.omp_set_num_threads(torch.get_num_threads())
    machine()
    print(f"faiss {faiss.__version__}")
    corpus = unit_vectors(given.corpus, 1)
    for k in (1, K, 100):
        take_turns(corpus, given.queries, k)
    if given.whole:
        before = peak_memory_bytes(torch.device("cpu"))
        clock = time.perf_counter()
        products(corpus, corpus)
        middle = time.perf_counter()
        top_k(corpus, corpus, K)
        ended = time.perf_counter()
        more = (peak_memory_bytes(torch.device("cpu")) - before) / 2**30
        ratio = (ended - middle) / (middle - clock)
        print(
            f"\n{given.corpus:,} against itself: products {middle - clock:.1f} s, top_k {ended - middle:.1f} s, {ratio:.2f} x"
        )
        print(f"  memory beyond what was there: {more:.2f} GiB")
    if given.graph:
        graph(corpus)
    if given.large:
        del corpus
        take_turns(unit_vectors(given.large, 2), min(given.queries, 256), K)


if __name__ == "__main__":
    main()
