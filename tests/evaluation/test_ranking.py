"""Figures of one-to-many data: ties against every order of the tied candidates, and nDCG against scikit-learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from sklearn.metrics import ndcg_score

from connection.evaluation.ranking import RECALL_AT, is_one_to_many, ranking_figures

NAMES = ("mrr@10", "ndcg@10", "map", *(f"recall@{k}" for k in RECALL_AT))


def of_an_order(gain):
    """The figures of one ranking of candidates, from the definitions."""
    relevant = [value >= 0.5 for value in gain]
    hits = [rank for rank, is_relevant in enumerate(relevant, 1) if is_relevant]
    dcg, best = (sum(value / math.log2(1 + rank) for rank, value in enumerate(values[:10], 1))
                 for values in (gain, sorted(gain, reverse=True)))  # fmt: skip
    return {
        "mrr@10": 1 / hits[0] if hits[0] <= 10 else 0,
        "ndcg@10": dcg / best,
        "map": sum((place + 1) / rank for place, rank in enumerate(hits)) / len(hits),
        **{f"recall@{k}": sum(rank <= k for rank in hits) / len(hits) for k in RECALL_AT},
    }


def over_all_orders(score, gain):
    """Their mean over every order that the scores allow."""
    orders = [
        order
        for order in itertools.permutations(range(len(score)))
        if all(score[a] >= score[b] for a, b in itertools.pairwise(order))
    ]
    found = [of_an_order([gain[place] for place in order]) for order in orders]
    return {name: np.mean([figures[name] for figures in found]) for name in NAMES}


@given(some.lists(some.tuples(some.integers(0, 2), some.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=2, max_size=6))
@settings(max_examples=150, deadline=None)
def test_ties_are_the_mean_over_all_their_orders(candidates):
    score, gain = (np.array(column, float) for column in zip(*candidates, strict=True))
    found = ranking_figures(np.zeros(len(score)), score, gain)
    if gain.max() < 0.5:
        assert found["queries"] == 0
        assert all(math.isnan(found[name]) for name in NAMES if name != "ndcg@10")
    else:
        assert {name: found[name] for name in NAMES} == pytest.approx(over_all_orders(score, gain))
    assert found["tied"] == sum((score == value).sum() for value in set(score) if (score == value).sum() > 1)


def test_long_lists_with_ties_across_the_depth():
    """20 candidates: brute force over orders is out of reach, drawing them is not."""
    random = np.random.default_rng(0)
    score, gain = random.integers(0, 3, size=20) / 2, random.choice([0, 0, 0, 1.0], size=20)
    found = ranking_figures(np.zeros(20), score, gain)
    drawn = []
    for _ in range(4000):
        order = np.lexsort((random.random(20), -score))
        drawn.append(of_an_order(gain[order].tolist()))
    for name in NAMES:
        values = [figures[name] for figures in drawn]
        assert found[name] == pytest.approx(np.mean(values), abs=5 * np.std(values) / math.sqrt(4000) + 1e-9), name


@pytest.mark.parametrize("ties", [False, True])
def test_many_queries_are_a_mean_over_each_alone(ties):
    random = np.random.default_rng(3)
    query = random.integers(0, 40, size=600)
    score, gain = random.normal(size=600), random.integers(0, 6, size=600) / 5
    score = np.round(score) if ties else score
    found = ranking_figures(query, score, gain)
    alone = [ranking_figures(query[query == name], score[query == name], gain[query == name]) for name in np.unique(query)]
    for name in NAMES:
        assert found[name] == pytest.approx(np.mean([figures[name] for figures in alone]))
    peers = [ndcg_score(gain[query == name][None], score[query == name][None], k=10) for name in np.unique(query)]
    assert found["ndcg@10"] == pytest.approx(np.mean(peers))
    if not ties:
        orders = [np.argsort(-score[query == name]) for name in np.unique(query)]
        plain = [of_an_order(gain[query == name][order].tolist()) for name, order in zip(np.unique(query), orders, strict=True)]
        for name in NAMES:
            assert found[name] == pytest.approx(np.mean([figures[name] for figures in plain]))


def test_queries_that_say_nothing_are_left_out_and_counted():
    query = np.array([7, 7, 3, 3, 5])
    found = ranking_figures(query, np.array([0.9, 0.1, 0.5, 0.4, 0.3]), np.array([0.0, 1.0, 0.0, 0.2, 1.0]))
    assert (found["queries"], found["without_relevant"], found["tied"]) == (1, 1, 0)
    assert (found["mrr@10"], found["map"], found["recall@1"], found["recall@5"]) == (0.5, 0.5, 0, 1)
    assert found["ndcg@10"] == pytest.approx(1 / math.log2(3))
    for empty in (ranking_figures(np.arange(4), np.ones(4), np.ones(4)), ranking_figures(*(np.zeros(0),) * 3)):
        assert (empty["queries"], empty["tied"]) == (0, 0)
        assert all(math.isnan(empty[name]) for name in NAMES)


def test_the_order_of_the_rows_does_not_count():
    random = np.random.default_rng(4)
    query, score, gain = random.integers(0, 5, 60), random.integers(0, 4, 60) / 4, random.integers(0, 2, 60).astype(float)
    order = random.permutation(60)
    assert ranking_figures(query, score, gain) == pytest.approx(ranking_figures(query[order], score[order], gain[order]))


def test_one_to_many_is_seen():
    assert is_one_to_many(np.array([1, 1, 2, 3]))
    assert not is_one_to_many(np.array([1, 1, 2, 3, 4]))
    assert not is_one_to_many(np.zeros(0))
