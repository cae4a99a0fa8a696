"""Which candidates are links: against scipy's dense assignment, scikit-learn's figures, and figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import precision_recall_fscore_support

from connection.model.calibration import Calibration
from connection.search.known_links import named_rows, read_known
from connection.search.linking import (
    Candidates,
    above,
    decision_threshold,
    each_once,
    link_figures,
    mutual,
    nearest,
    one_to_one,
)
from connection.system.errors import InputError
from tests.conftest import write_pairs

NONE = np.zeros(0, np.int64)


def best_of(cosines):
    """What top_k() gives: k -> the k best of each row, of equal ones the first."""

    def top(k):
        rows = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(cosines, rows, 1), rows

    return top


def all_pairs(cosines) -> Candidates:
    return nearest(best_of(cosines), cosines.shape[1], cosines.shape, NONE)


def random_cosines(n, m, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (n, m)).astype(np.float32)


def pairs_of(candidates, chosen):
    return {(int(a), int(b)) for a, b in zip(candidates.a[chosen], candidates.b[chosen], strict=True)}


def test_the_best_candidates_of_each_row_without_those_left_out():
    cosines = np.array([[0.1, 0.9, 0.5], [0.8, 0.2, 0.7]], np.float32)
    found = nearest(best_of(cosines), 2, cosines.shape, NONE)
    assert found.a.tolist() == [0, 0, 1, 1]
    assert found.b.tolist() == [1, 2, 0, 2]
    assert found.rank.tolist() == [1, 2, 1, 2]
    without = nearest(best_of(cosines), 2, cosines.shape, np.array([0 * 3 + 1, 1 * 3 + 2]))
    assert without.b.tolist() == [2, 0, 0, 1]
    assert without.rank.tolist() == [1, 2, 1, 2]


def test_a_list_with_itself_has_each_pair_once_and_no_row_with_itself():
    vectors = np.random.default_rng(1).normal(size=(30, 4))
    vectors[7] = vectors[3] = vectors[20]  # exact duplicates, more than the candidates asked for
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (unit @ unit.T).astype(np.float32)
    found = each_once(nearest(best_of(cosines), 2, cosines.shape, np.arange(30) * 31))
    pairs = list(zip(found.a.tolist(), found.b.tolist(), strict=True))
    assert all(a < b for a, b in pairs)
    assert len(set(pairs)) == len(pairs)
    assert {(3, 7), (3, 20), (7, 20)} <= set(pairs)
    np.fill_diagonal(cosines, -2)
    wanted = {tuple(sorted((a, int(b)))) for a in range(30) for b in np.argsort(-cosines[a], kind="stable")[:2]}
    assert set(pairs) == wanted
    assert found.rank[pairs.index((3, 7))] == 1


def test_without_a_threshold_the_best_of_each_row_is_connected():
    candidates = all_pairs(random_cosines(5, 4))
    assert above(candidates, None).tolist() == (candidates.rank == 1).tolist()
    np.testing.assert_array_equal(above(candidates, 0.3), candidates.cosine >= 0.3)


def test_mutual_pairs_are_each_others_best():
    cosines = random_cosines(40, 25)
    candidates, backward = all_pairs(cosines), nearest(best_of(cosines.T), 1, (25, 40), NONE)
    best_b, best_a = cosines.argmax(1), cosines.argmax(0)
    wanted = {(a, int(b)) for a, b in enumerate(best_b) if best_a[b] == a}
    assert 5 < len(wanted) < 25
    assert pairs_of(candidates, mutual(candidates, backward, 25)) == wanted


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
    figures = link_figures(candidates, connected, known, judged, 20)
    truth = np.isin(np.arange(120), known).reshape(6, 20)[judged].ravel()
    called = (cosines >= 0.5)[judged].ravel()
    precision, recall, f1, _ = precision_recall_fscore_support(truth, called, average="binary")
    assert [figures[name] for name in ("precision", "recall", "f1")] == pytest.approx([precision, recall, f1])
    assert (figures["rows"], figures["known"], figures["linked"]) == (4, 4, called.sum())
    ranks = {pair: 1 + int((cosines[pair // 20] > cosines[pair // 20, pair % 20]).sum()) for pair in known.tolist()}
    first = [min(ranks[4], ranks[9]), ranks[20], ranks[79]]
    assert figures["mrr@10"] == pytest.approx(np.mean([1 / rank if rank <= 10 else 0 for rank in first]))
    for k in (1, 5, 10):
        share = [np.mean([ranks[4] <= k, ranks[9] <= k]), ranks[20] <= k, ranks[79] <= k]
        assert figures[f"recall@{k}"] == pytest.approx(np.mean(share))


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
