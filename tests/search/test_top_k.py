"""The nearest vectors, against sentence-transformers' search and a full sort."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers.util import semantic_search

from connection.search import top_k as module
from connection.search.top_k import top_k
from connection.search.vectors import encode_texts
from ConnectionBert import ConnectionBert


@pytest.mark.parametrize(("n", "m", "k"), [(7, 1000, 3), (7, 1000, 40), (300, 33, 5), (1, 1, 4), (5, 3, 9)])
@pytest.mark.parametrize("scores_at_once", [1, 5000, 64 << 20])
def test_the_nearest_are_those_of_a_full_sort_and_of_sentence_transformers(monkeypatch, n, m, k, scores_at_once):
    monkeypatch.setattr(module, "SCORES_AT_ONCE", scores_at_once)
    random = np.random.default_rng(n + m + k)
    queries, corpus = (random.normal(size=(rows, 16)).astype(np.float32) for rows in (n, m))
    corpus[m // 2] = corpus[0]  # equal scores
    scores, rows = top_k(queries, corpus, k)
    products = queries @ corpus.T
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    assert rows.shape == scores.shape == (n, min(k, m))
    np.testing.assert_allclose(scores, np.take_along_axis(products, order, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(products, rows, 1), scores, rtol=1e-4, atol=1e-5)
    assert all(len(set(row)) == len(row) for row in rows.tolist())
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (queries, corpus)]
    found = [[hit["score"] for hit in hits] for hits in semantic_search(unit[0], unit[1], top_k=k)]
    np.testing.assert_allclose(top_k(unit[0], unit[1], k)[0], found, atol=1e-5)


def test_texts_become_vectors_of_length_1_each_distinct_text_once(tiny_folder, monkeypatch):
    bert = ConnectionBert.load(tiny_folder, max_length=8)
    texts = ["the dog plays", "a cat", "the dog plays", "the man sees the dog in the park at night", "a cat"]
    seen: list[int] = []
    real = bert.encode_tokens

    def counted(tokens, *words, **named):
        seen.append(len(tokens))
        return real(tokens, *words, **named)

    monkeypatch.setattr(bert, "encode_tokens", counted)
    vectors, cut = encode_texts(bert, texts, 1)
    assert seen == [3]  # the distinct ones
    assert cut == 1
    wanted = bert.encode(texts, progress=False, precision="fp32")
    np.testing.assert_allclose(vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)
