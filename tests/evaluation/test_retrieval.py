"""Retrieval figures of pairs without labels: against sentence-transformers' evaluators, and from the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.evaluation import InformationRetrievalEvaluator, TripletEvaluator

from connection.data.labels import LabelScale
from connection.data.pair_file import PairFile
from connection.data.pair_store import load_pairs
from connection.evaluation.bootstrap import resampled_means
from connection.evaluation.evaluate import LabelledPairs, evaluate, retrieval_gain, with_intervals
from connection.evaluation.retrieval import by_query, search_answers
from ConnectionBert import ConnectionBert
from tests.conftest import NOUNS

SCALE = LabelScale(0, 1, "triplets", "without labels")
TRIPLETS = [(f"the {noun} plays", f"a {NOUNS[(5 * i + j) % 10]} sees the {noun}", f"a {NOUNS[i - 1 - j]} rides not")
            for i, noun in enumerate(NOUNS) for j in range(3)]  # fmt: skip


@pytest.fixture
def model(tiny_folder):
    return ConnectionBert.load(str(tiny_folder))


def stored(tmp_path, model, rows, head="anchor,positive,negative"):
    path = tmp_path / "p.csv"
    path.write_text("\n".join([head, *(",".join(row) for row in rows)]))
    return load_pairs(PairFile.open(path), model.tokenizer, 32, -math.inf, math.inf, tmp_path, False)


def searched(model, store, places=slice(None)):
    return search_answers(model, store, places, store.label[places] == 1, "search")


def test_figures_are_those_of_sentence_transformers(tiny_folder, tmp_path, model):
    """Three right answers of each of ten queries among all second sentences, the negatives of the triplets included."""
    store = stored(tmp_path, model, TRIPLETS)
    found = evaluate(LabelledPairs.of(store, SCALE), searched(model, store))
    peer = SentenceTransformer(str(tiny_folder), device="cpu")
    anchors, positives, negatives = zip(*TRIPLETS, strict=True)
    corpus = {text: text for text in (*positives, *negatives)}
    right = {anchor: {two for one, two, _ in TRIPLETS if one == anchor} for anchor in anchors}
    ranked = InformationRetrievalEvaluator(
        {anchor: anchor for anchor in anchors}, corpus, right, mrr_at_k=[10], precision_recall_at_k=[1, 5, 10], name="p"
    )(peer)
    assert found["mrr"] == pytest.approx(ranked["p_cosine_mrr@10"])
    for k in (1, 5, 10):
        assert found["retrieval"][f"recall@{k}"] == pytest.approx(ranked[f"p_cosine_recall@{k}"])
    assert 0.1 < found["mrr"] < 0.9
    triplets = TripletEvaluator(anchors, positives, negatives, name="p")(peer)
    assert found["retrieval"]["triplet_accuracy"] == pytest.approx(triplets["p_cosine_accuracy"])
    counts = {name: found["retrieval"][name] for name in ("queries", "candidates", "triplets")}
    assert counts == {"queries": 10, "candidates": len(corpus), "triplets": 30}
    assert math.isnan(found["spearman"])


def test_ranks_follow_from_the_definition_in_blocks_of_any_size(tmp_path, model, monkeypatch):
    """A right answer counts the wrong ones that are not further, and the right ones that are nearer; never the query itself."""
    rows = [*TRIPLETS, ("the cat plays", "the dog plays", "the man plays"), ("a red cat", "a red cat", "a big cat")]
    store = stored(tmp_path, model, rows)
    whole = searched(model, store)
    monkeypatch.setattr("connection.evaluation.retrieval.SCORES_AT_ONCE", 1)
    assert searched(model, store) == pytest.approx(whole, abs=1e-5)
    texts = sorted({text for _, *others in rows for text in others})
    vectors = dict(zip(texts, model.encode(texts), strict=True))
    right = {one: {two for anchor, two, _ in rows if anchor == one} for one, _, _ in rows}
    for place, (one, two, _) in enumerate(rows):
        query = model.encode([one])[0]
        lengths = {text: np.linalg.norm(query) * np.linalg.norm(vector) for text, vector in vectors.items()}
        cosine = {text: float(query @ vector / lengths[text]) for text, vector in vectors.items()}
        wrong = sum(cosine[text] >= cosine[two] - 1e-6 for text in texts if text not in right[one] and text != one)
        nearer = sum(cosine[text] > cosine[two] for text in right[one])
        assert whole[2 * place] == pytest.approx([cosine[two], 1 + wrong + nearer], abs=1e-5), (one, two)
    assert (whole[1::2, 1] == 0).all()


def test_texts_that_the_model_can_not_tell_apart_are_one(tmp_path, model):
    rows = [("a dog", "the cat sees"), ("A dog", "The  cat sees"), ("a man", "the horse"), ("a book", "THE CAT SEES")]
    found = searched(model, stored(tmp_path, model, rows, "anchor,positive"))
    assert found[0].tolist() == found[1].tolist()
    assert found[:, 1].max() <= 2  # two distinct candidates


def test_equal_cosines_are_no_luck(tmp_path, model, monkeypatch):
    """A model for which all texts are alike finds nothing."""
    monkeypatch.setattr(type(model), "encode_tokens", lambda self, sentences, **_: torch.ones(len(sentences), 4))
    found = searched(model, stored(tmp_path, model, [(f"the {a}", f"a {a}") for a in NOUNS], "anchor,positive"))
    assert found[:, 1].tolist() == [10] * 10


def test_a_broken_model_has_no_figures(tmp_path, model, monkeypatch):
    monkeypatch.setattr(type(model), "encode_tokens", lambda self, sentences, **_: torch.full((len(sentences), 4), math.nan))
    store = stored(tmp_path, model, TRIPLETS)
    pairs, found = LabelledPairs.of(store, SCALE), searched(model, store)
    figures = evaluate(pairs, found)
    assert math.isnan(figures["mrr"])
    assert math.isnan(with_intervals(pairs, figures, found, figures.copy(), found)["mrr_low"])


def test_figures_of_each_query():
    """Ranks 2 and 20 of one query, its first answer given twice; 4 of another; a negative counts nothing."""
    query, pair, rank = np.array([7, 7, 7, 3, 3]), np.array([1, 1, 2, 3, 4]), np.array([2, 2, 20, 4, 0])
    found = by_query(query, pair, rank)
    assert found["mrr"].tolist() == [1 / 4, 1 / 2]
    assert [found[f"recall@{k}"].tolist() for k in (1, 5, 10)] == [[0, 0], [1, 0.5], [1, 0.5]]


def test_the_gain_and_its_interval_are_over_queries():
    """Against resamples drawn one by one, of whole queries."""
    random = np.random.default_rng(0)
    query, pair = np.repeat(np.arange(40), 2), np.arange(80)
    base, final = random.integers(2, 15, 80), random.integers(1, 6, 80)
    gain, drawn = retrieval_gain(query, pair, base, final)
    before, after = (by_query(query, pair, rank)["mrr"] for rank in (base, final))
    assert gain["mrr"] == pytest.approx(after.mean() - before.mean())
    differences = [(after - before)[random.integers(0, 40, 40)].mean() for _ in range(4000)]
    assert [gain["mrr_low"], gain["mrr_high"]] == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=0.01)
    assert drawn.shape == (2, gain["resamples"])
    assert gain["mrr_p"] < 0.01
    few = retrieval_gain(query[:18], pair[:18], base[:18], final[:18])[0]  # nine queries
    assert math.isnan(few["mrr_low"])
    assert math.isnan(few["mrr_p"])


def test_means_in_resamples_are_paired():
    values = np.random.default_rng(1).normal(size=50)
    drawn = resampled_means(np.array([values, values + 1]))
    assert np.allclose(drawn[1] - drawn[0], 1)
    assert drawn[0].std() == pytest.approx(values.std() / math.sqrt(50), rel=0.05)
