"""Which candidates are links: against scipy's dense assignment, scikit-learn's figures, and figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import precision_recall_fscore_support

from connection.model.calibration import Calibration
from connection.search import linking
from connection.search.known_links import KnownLinks, named_rows, read_known
from connection.search.linking import Candidates, above, decision_threshold, find_links, link_figures, nearest, one_to_one
from connection.system.errors import InputError
from tests.conftest import write_pairs


def all_pairs(cosines) -> Candidates:
    n, m = cosines.shape
    order = np.argsort(-cosines, axis=1, kind="stable")
    a = np.repeat(np.arange(n), m)
    return Candidates(a, order.ravel(), cosines[a, order.ravel()], np.tile(np.arange(1, m + 1), n))


def unit(n, size=6, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, size))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random_cosines(n, m, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, m)).astype(np.float32)


def pairs_of(candidates, chosen):
    return {(int(a), int(b)) for a, b in zip(candidates.a[chosen], candidates.b[chosen], strict=True)}


@pytest.mark.parametrize("left_out", [[], [3], [0 * 9 + 2, 4 * 9 + 1, *range(9, 17)]])
def test_the_best_candidates_of_each_row_without_those_left_out(left_out):
    a, b = unit(5), unit(9, seed=1)
    found = nearest(a, b, 3, np.array(left_out, np.int64))
    cosines = (a @ b.T).astype(float)
    cosines.ravel()[left_out] = -2
    wanted = [(row, int(place), rank) for row in range(5) for rank, place in enumerate(np.argsort(-cosines[row])[:3], 1)
              if cosines[row, place] > -2]  # fmt: skip
    assert list(zip(found.a.tolist(), found.b.tolist(), found.rank.tolist(), strict=True)) == wanted
    np.testing.assert_allclose(found.cosine, cosines[found.a, found.b], atol=1e-6)


def test_a_list_with_itself_has_each_pair_once_and_no_row_with_itself():
    vectors = unit(30, 4)
    vectors[7] = vectors[3] = vectors[20]  # exact duplicates, more than the candidates asked for
    links = find_links(vectors, None, 2, 0.99)
    found = links.candidates
    pairs = list(zip(found.a.tolist(), found.b.tolist(), strict=True))
    assert all(a < b for a, b in pairs)
    assert len(set(pairs)) == len(pairs)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    second = np.sort(cosines, axis=1)[:, -2]
    assert all(cosines[pair] >= min(second[list(pair)]) - 1e-6 for pair in pairs)  # of equal rows, any
    assert {row for pair in pairs for row in pair} == set(range(30))
    assert pairs_of(found, links.connected) == {(3, 7), (3, 20), (7, 20)}


def test_without_a_threshold_the_best_of_each_row_is_connected():
    candidates = all_pairs(random_cosines(5, 4))
    assert above(candidates, None).tolist() == (candidates.rank == 1).tolist()
    np.testing.assert_array_equal(above(candidates, 0.3), candidates.cosine >= 0.3)


def test_mutual_pairs_are_each_others_best():
    a, b = unit(40), unit(25, seed=1)
    cosines = a @ b.T
    best_b, best_a = cosines.argmax(1), cosines.argmax(0)
    wanted = {(row, int(place)) for row, place in enumerate(best_b) if best_a[place] == row}
    assert 5 < len(wanted) < 25
    links = find_links(a, b, 3, None, "mutual")
    assert pairs_of(links.candidates, links.connected) == wanted
    links = find_links(a, b, 3, 0.9, "mutual")
    assert pairs_of(links.candidates, links.connected) == {pair for pair in wanted if cosines[pair] >= 0.9}


@pytest.mark.parametrize("shape", [(30, 30), (12, 40), (40, 12), (1, 5), (5, 1)])
def test_one_to_one_is_scipys_best_assignment(shape):
    cosines = random_cosines(*shape)
    candidates = all_pairs(cosines)
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    chosen = one_to_one(candidates, shape, None)
    assert pairs_of(candidates, chosen) == set(zip(rows.tolist(), columns.tolist(), strict=True))
    worth = np.maximum(cosines.astype(float) - 0.6, 0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    wanted = {(a, b) for a, b in zip(rows.tolist(), columns.tolist(), strict=True) if cosines[a, b] >= 0.6}
    assert pairs_of(candidates, one_to_one(candidates, shape, 0.6)) == wanted


def test_one_to_one_prefers_a_strong_link_to_two_that_just_reach_the_threshold():
    candidates = all_pairs(np.array([[0.95, 0.52], [0.52, 0.1]], np.float32))
    assert pairs_of(candidates, one_to_one(candidates, (2, 2), 0.5)) == {(0, 0)}
    assert pairs_of(candidates, one_to_one(candidates, (2, 2), 0.2)) == {(0, 0)}
    even = all_pairs(np.array([[0.6, 0.59], [0.59, 0.1]], np.float32))
    assert pairs_of(even, one_to_one(even, (2, 2), 0.5)) == {(0, 1), (1, 0)}


def test_one_to_one_takes_a_link_at_the_very_threshold_and_none_below():
    candidates = all_pairs(np.array([[0.5, 0.25], [0.25, 0.25]], np.float32))
    assert pairs_of(candidates, one_to_one(candidates, (2, 2), 0.5)) == {(0, 0)}
    assert not one_to_one(candidates, (2, 2), 0.75).any()


def test_figures_are_scikit_learns_and_the_ranks_those_worked_out_by_hand():
    cosines = random_cosines(6, 20, seed=3)
    candidates = all_pairs(cosines)
    known = np.array([0 * 20 + 4, 0 * 20 + 9, 1 * 20 + 0, 3 * 20 + 19])
    judged = np.array([0, 1, 3, 4])  # row 4 is known to have no link; nothing is known of 2 and 5
    connected = candidates.cosine >= 0.5
    figures = link_figures(candidates, connected, known, judged, 20, top=7)
    truth = np.isin(np.arange(120), known).reshape(6, 20)[judged].ravel()
    called = (cosines >= 0.5)[judged].ravel()
    precision, recall, f1, _ = precision_recall_fscore_support(truth, called, average="binary")
    assert [figures[name] for name in ("precision", "recall", "f1")] == pytest.approx([precision, recall, f1])
    assert (figures["rows"], figures["known"], figures["linked"]) == (4, 4, called.sum())
    scores = np.where(cosines >= np.sort(cosines, axis=1)[:, -7, None], cosines, -2)[judged].ravel()  # the 7 best of each row
    every = [precision_recall_fscore_support(truth, scores >= score, average="binary")[2] for score in scores if score > -2]
    assert figures["best_f1"] == pytest.approx(max(every))
    assert figures["best_threshold"] == scores[scores > -2][int(np.argmax(every))]
    ranks = {pair: 1 + int((cosines[pair // 20] > cosines[pair // 20, pair % 20]).sum()) for pair in known.tolist()}
    first = [min(ranks[4], ranks[9]), ranks[20], ranks[79]]
    assert figures["mrr@10"] == pytest.approx(np.mean([1 / rank if rank <= 10 else 0 for rank in first]))
    for k in (1, 5, 10):
        share = [((ranks[4] <= k) + (ranks[9] <= k)) / 2, float(ranks[20] <= k), float(ranks[79] <= k)]
        assert figures[f"recall@{k}"] == pytest.approx(np.mean(share))


def test_links_are_measured_against_the_known_ones_wherever_these_rank():
    a, b = unit(8), unit(50, seed=1)
    cosines = a @ b.T
    order = np.argsort(-cosines, axis=1)
    known = np.sort([order[0, 0], 50 + order[1, 2], 100 + order[2, 40]])  # of ranks 1, 3 and 41
    links = find_links(a, b, 1, None, "", KnownLinks(known, np.array([3 * 50 + 7]), []), "evaluate")
    assert links.figures
    assert links.figures["mrr@10"] == pytest.approx((1 + 1 / 3) / 3)
    assert links.figures["recall@5"] == pytest.approx(2 / 3)
    assert (links.figures["rows"], links.figures["linked"], links.figures["right"]) == (4, 4, 1)
    assert (links.figures["precision"], links.figures["recall"]) == (1 / 4, pytest.approx(1 / 3))
    assert links.candidates.rank.max() == 1


def test_known_duplicates_are_measured_from_both_of_their_rows():
    a = unit(9)
    cosines = a @ a.T
    np.fill_diagonal(cosines, -2)
    ranks = [1 + int((cosines[one] > cosines[one, other]).sum()) for one, other in ((2, 7), (7, 2))]
    known = KnownLinks(np.array([7 * 9 + 2]), np.zeros(0, np.int64), [])
    links = find_links(a, None, 2, float(cosines[2, 7]), "", known, "evaluate")
    assert links.figures
    assert links.figures["mrr@10"] == pytest.approx((1 / ranks[0] + 1 / ranks[1]) / 2)
    assert (links.figures["rows"], links.figures["known"]) == (2, 2)
    assert links.figures["right"] == sum(rank <= 2 for rank in ranks)


def test_known_pairs_are_left_out_in_both_directions():
    a, b = unit(12), unit(12, seed=1)
    known = KnownLinks(np.array([5 * 12 + int((a @ b.T)[5].argmax())]), np.array([0]), [])
    links = find_links(a, b, 12, None, "", known, "exclude")
    assert len(links.candidates) == 12 * 12 - 2
    assert not np.isin(links.candidates.numbers(12), known.pairs).any()
    assert not np.isin(links.best[1].b * 12 + links.best[1].a, known.pairs).any()
    alone = find_links(a, None, 11, None, "", KnownLinks(np.array([7 * 12 + 2]), np.zeros(0, np.int64), []), "exclude")
    pairs = pairs_of(alone.candidates, slice(None))
    assert pairs == {(one, other) for one in range(12) for other in range(one + 1, 12)} - {(2, 7)}


def test_a_one_to_one_link_may_rank_below_the_candidates_that_are_listed():
    a = b = np.repeat(unit(1), 3, axis=0)
    links = find_links(a, b, 1, None, "one-to-one")
    linked = pairs_of(links.candidates, links.connected)
    assert len(linked) == 3
    assert {one for one, _ in linked} == {other for _, other in linked} == {0, 1, 2}


def test_beyond_the_bound_one_to_one_looks_at_the_nearest_of_each_row(monkeypatch):
    a, b = unit(60, 3), unit(60, 3, seed=1)
    rows, columns = linear_sum_assignment(np.maximum(a @ b.T - 0.9, 0), maximize=True)
    wanted = {(i, j) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if a[i] @ b[j] >= 0.9}
    monkeypatch.setattr(linking, "ALL_PAIRS", 100)
    monkeypatch.setattr(linking, "NEAREST", 40)  # more than any row has above the threshold: still the best assignment
    assert ((a @ b.T >= 0.9).sum(1) < 40).all()
    links = find_links(a, b, 1, 0.9, "one-to-one")
    assert pairs_of(links.candidates, links.connected) == wanted


def test_the_threshold_of_graded_labels_is_where_the_calibration_reaches_the_middle():
    knots = ((0.0, 0.2, 0.6, 1.0), (0.0, 1.0, 4.0, 5.0))
    threshold, how = decision_threshold(Calibration(None, knots), (0, 5))
    assert threshold == pytest.approx(0.4)
    assert Calibration(None, knots).label(np.array(threshold)) == pytest.approx(2.5)
    assert "2.5" in how
    reversed_knots = ((0.0, 0.2, 0.6, 1.0), (6.0, 5.0, 2.0, 1.0))
    assert decision_threshold(Calibration(None, reversed_knots), (6, 1))[0] == pytest.approx(0.4)
    assert decision_threshold(Calibration(0.3, knots), (0, 1))[0] == 0.3
    assert decision_threshold(Calibration(None, ((0.1, 0.9), (1.0, 2.0))), (0, 5)) == (None, "")
    assert decision_threshold(Calibration(), (0, 5)) == (None, "")


IDS_A, IDS_B = ["R1", "R2", "R3"], ["T1", "T2"]
TEXTS_A, TEXTS_B = ["the door", "the lamp", "-5 degrees"], ["a door", "a lamp"]
A, B = named_rows(IDS_A, TEXTS_A), named_rows(IDS_B, TEXTS_B)


@pytest.mark.parametrize(
    ("header", "rows", "links", "others"),
    [
        (("test", "requirement"), [("T2", "R1"), ("T1", "R3")], [1, 4], []),  # columns in any order, without labels
        (None, [("R1", "T1")], [0], []),
        (("sentence1", "sentence2", "label"), [("the door", "a door", 1), ("'-5 degrees", "a lamp", 0)], [0], [5]),
        (("sentence1", "sentence2", "label"), [("the door", "a door", 4), ("the lamp", " a  lamp", 2)], [0], [3]),
        (("a", "b", "label"), [("R2", "T1", "yes"), ("R3", "T1", "no")], [2], [4]),
        (("a", "b", "score"), [("R1", "T1", 3), ("R2", "T1", "")], [0], []),
        (("id1", "id2", "cosine", "connected"), [("R1", "T1", 0.9, "yes"), ("R2", "T2", 0.1, "no")], [0], [3]),
        (("note", "id1", "id2"), [("x", "R1", "T1"), ("y", "R9", "T1")], [0], []),
    ],
)
def test_known_links_by_id_or_text_with_or_without_labels(tmp_path, header, rows, links, others):
    known = read_known([write_pairs(tmp_path / "known.csv", rows, header)], A, B, 2, (0, 5))
    assert known.links.tolist() == links
    assert known.others.tolist() == others
    assert len(known.unused) == len(rows) - len(links) - len(others)
    assert all("R9" in text or "no label" in text for text in known.unused)


def test_a_known_file_that_names_no_row_is_refused(tmp_path):
    with pytest.raises(InputError, match="no row names a row of each list"):
        read_known([write_pairs(tmp_path / "known.csv", [("R7", "T1"), ("R8", "T2")], ("a", "b"))], A, B, 2, None)
