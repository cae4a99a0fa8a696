"""Which pairs are suggested: near the threshold, of many texts, one of each group, none labelled already."""

from __future__ import annotations

import csv
import errno
import itertools
import json
import os

import numpy as np
import pytest
from sklearn.cluster import KMeans

from connection.data.pair_file import PairFile
from connection.model.calibration import Calibration
from connection.search.suggestion import NEAR, Pool, near_threshold, one_per_cluster, over_scale
from connection.system.csv_output import from_cell
from ConnectionBert import ConnectionBert
from tests.conftest import MANY, NOUNS, PAIRS, run_inside, write_pairs
from tools import suggest as command


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def pool_of(cosine, a=None, b=None, vectors=None):
    n = len(cosine)
    vectors = unit(np.random.default_rng(0).normal(size=(n, 8))) if vectors is None else vectors
    cosine = np.array(cosine, float)
    rows = np.arange(n)
    return Pool(rows if a is None else a, rows if b is None else b, cosine, np.clip(cosine, 0, 1), vectors, vectors)


def blobs(groups, each):
    """Groups of vectors that are far from one another: (groups * each, 16) and the group of each."""
    random = np.random.default_rng(1)
    group = np.arange(groups).repeat(each)
    return unit(4 * np.eye(16)[group] + 0.1 * random.normal(size=(len(group), 16))), group


def test_one_of_each_cluster_and_of_it_the_one_of_lowest_rank():
    features, group = blobs(6, 20)
    assert len({*zip(KMeans(6, n_init=10, random_state=0).fit_predict(features).tolist(), group.tolist(), strict=True)}) == 6
    rank = np.random.default_rng(2).permutation(len(group))
    for count in (3, 6):  # with fewer clusters than groups, no group is split
        chosen = one_per_cluster(features, count, rank)
        assert len(set(group[chosen].tolist())) == count
        assert all(rank[row] == rank[group == group[row]].min() for row in chosen) or count < 6


def test_equal_features_leave_no_gap():
    chosen = one_per_cluster(np.ones((9, 2), np.float32), 4, np.arange(9)[::-1])
    assert sorted(chosen.tolist()) == [5, 6, 7, 8]  # the lowest ranks
    assert one_per_cluster(np.ones((3, 2), np.float32), 3, np.arange(3)).tolist() == [0, 1, 2]


def test_pairs_near_the_threshold_nearest_first():
    cosine = np.random.default_rng(3).permutation(np.linspace(-1, 1, 201))
    chosen = near_threshold(pool_of(cosine), 10, 0.3)
    near = np.abs(cosine[chosen] - 0.3)
    assert len(set(chosen.tolist())) == 10
    assert (np.diff(near) >= 0).all()
    assert near.max() <= np.sort(np.abs(cosine - 0.3))[10 * NEAR - 1]


def test_pairs_about_the_same_are_not_asked_together():
    """Ten groups of four pairs; the nearest ten are of three groups only."""
    vectors, group = blobs(10, 4)
    cosine = 0.5 + 0.01 * np.arange(40)
    chosen = near_threshold(pool_of(cosine, vectors=vectors), 10, 0.5)
    assert len(set(group[np.argsort(cosine)[:10]].tolist())) == 3
    assert len(set(group[chosen].tolist())) >= 7


def test_no_text_has_more_than_its_share():
    """20 texts with 20 candidates each; those of the first text are all nearest to the threshold."""
    a = np.arange(20).repeat(20)
    pool = pool_of(np.where(a == 0, 0.5, 0.9) + 0.001 * np.arange(400), a=a, b=np.tile(np.arange(20), 20))
    chosen = near_threshold(pool, 10, 0.5)
    assert (a[chosen] == 0).sum() <= NEAR * 10 / 20


def test_bands_of_the_scale_have_equal_shares_and_an_empty_one_leaves_its_own():
    predicted = np.r_[np.full(3, 0.1), np.full(500, 0.3), np.full(60, 0.9), 1.0]  # bands 0, 1, 4
    chosen = over_scale(pool_of(predicted), 43)
    assert len(set(chosen.tolist())) == 43
    assert [int((predicted[chosen] == value).sum()) for value in (0.1, 0.3)] == [3, 20]


@pytest.mark.parametrize("count", [6, 7, 8, 100])
def test_all_pairs_where_there_are_no_more(count):
    for chosen in (near_threshold(pool_of(np.zeros(7)), count, 0.5), over_scale(pool_of(np.zeros(7)), count)):
        assert len(set(chosen.tolist())) == len(chosen) == min(count, 7)


def test_few_texts_do_not_make_fewer_suggestions():
    pool = pool_of(np.linspace(0, 1, 30), a=np.r_[np.zeros(25, int), 1:6], b=np.arange(30))
    assert len(set(near_threshold(pool, 20, 0.5).tolist())) == 20


def write_list(path, texts, name="text"):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", name), *((f"X{number}", text) for number, text in enumerate(texts))])
    return path


def read_rows(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def unlabelled(path, rows):
    return write_pairs(path, [(one, two, "") for one, two, *_ in rows])


@pytest.fixture
def model(tiny_folder, tmp_path):
    bert = ConnectionBert.load(tiny_folder)
    bert.labels, bert.calibration = (0.0, 5.0), Calibration(None, ((0.0, 0.9, 1.0), (0.0, 2.0, 5.0)))
    bert.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_file_of_pairs(model, tmp_path):
    shown = run_inside(command.main, model, unlabelled(tmp_path / "all.csv", MANY), "--count", 12, "--by", "threshold",
                       "-o", tmp_path / "next.csv")  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    rows = read_rows(tmp_path / "next.csv")
    assert list(rows[0]) == ["sentence1", "sentence2", "score", "predicted", "cosine", "line1", "line2"]
    assert len({(row["sentence1"], row["sentence2"]) for row in rows}) == 12
    bert = ConnectionBert.load(model)
    cosine = bert.similarity([row["sentence1"] for row in rows], [row["sentence2"] for row in rows])
    assert np.allclose([float(row["cosine"]) for row in rows], cosine, atol=1e-4)
    assert np.allclose([float(row["predicted"]) for row in rows], np.interp(cosine, [0, 0.9, 1], [0, 2, 5]), atol=0.01)
    assert {row["score"] for row in rows} == {""}
    for row in rows:  # the line of the file, on which the pair stands
        assert MANY[int(row["line1"]) - 2][:2] == (row["sentence1"], row["sentence2"])
    middle = 0.9 + 0.1 * 0.5 / 3  # where the calibration reaches 2.5
    assert f"near the cosine {middle:.4f}" in shown.stderr
    near = np.sort(np.abs(bert.similarity([str(pair[0]) for pair in MANY], [str(pair[1]) for pair in MANY]) - middle))
    assert np.abs(cosine - middle).max() <= near[12 * NEAR - 1] + 1e-4


def test_by_default_the_predicted_labels_are_spread(model, tmp_path):
    bert = ConnectionBert.load(model)
    bert.calibration = Calibration(None, ((-1.0, 1.0), (5.0, 0.0)))  # a reversed scale: 5 is no connection
    bert.labels = (5.0, 0.0)
    cosine = np.sort(bert.similarity([pair[0] for pair in MANY], [pair[1] for pair in MANY]))
    knots = ((float(cosine[0]), float(cosine[-1])), (5.0, 0.0))
    bert.calibration = Calibration(None, knots)
    bert.save(tmp_path / "reversed")
    shown = run_inside(command.main, tmp_path / "reversed", unlabelled(tmp_path / "all.csv", MANY), "--count", 10, "--json")
    predicted = [row["predicted"] for row in json.loads(shown.stdout)]
    share = np.histogram(np.interp(cosine, *knots), 5, (0, 5))[0]
    assert (np.histogram(predicted, 5, (0, 5))[0] >= np.minimum(share, 2)).all()
    assert "spread over the predicted labels" in shown.stderr


def test_at_random_is_another_choice_but_the_same_each_time(model, tmp_path):
    words = (model, unlabelled(tmp_path / "all.csv", MANY), "--count", 10, "--json", "--by")
    once, again, other = (json.loads(run_inside(command.main, *words, by).stdout) for by in ("random", "random", "scale"))
    assert once == again != other
    assert len({(row["sentence1"], row["sentence2"]) for row in once}) == 10


def test_two_lists_and_nothing_that_is_labelled(model, tmp_path):
    """The labelled pairs may be the other way round, and in other letters; one without a score is not labelled."""
    ones, twos = [f"the {noun} plays" for noun in NOUNS], [f"a {noun} sees it" for noun in NOUNS]
    pairs = list(itertools.product(ones, twos))
    done = [(two.upper(), f"  {one}", 3) for one, two in pairs[:95]] + [(*pairs[95], "")]
    shown = run_inside(command.main, model, write_list(tmp_path / "a.csv", ones), write_list(tmp_path / "b.csv", twos),
                       "--labelled", write_pairs(tmp_path / "done.csv", done), "-o", tmp_path / "next.csv")  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    rows = read_rows(tmp_path / "next.csv")
    assert {(row["sentence1"], row["sentence2"]) for row in rows} == set(pairs[95:])
    assert all(ones[int(row["id1"][1:])] == row["sentence1"] for row in rows)
    assert all(twos[int(row["id2"][1:])] == row["sentence2"] for row in rows)
    assert "100 candidates, 95 of them labelled already" in shown.stderr


def test_pairs_that_are_far_apart_are_candidates_too(model, tmp_path):
    ones = [f"the {noun} plays" for noun in NOUNS]
    twos = [f"a {b} sees the {c} {d}" for b, c, d in itertools.product(NOUNS[:6], NOUNS[:5], NOUNS)]
    shown = run_inside(command.main, model, write_list(tmp_path / "a.csv", ones), write_list(tmp_path / "b.csv", twos),
                       "--count", 1200, "--json")  # fmt: skip
    rows = json.loads(shown.stdout)
    assert "1,200 candidates" in shown.stderr  # of each of 10 texts the nearest 100 of 300, and 20 others
    bert = ConnectionBert.load(model)
    for text in ones[:3]:
        cosine = np.sort(bert.similarity([text] * 300, twos))
        found = np.array([row["cosine"] for row in rows if row["sentence1"] == text])
        assert (found >= cosine[-100] - 1e-3).sum() >= 100
        assert found.min() < cosine[150]


def test_the_filled_in_file_is_a_pair_file(model, tmp_path):
    run_inside(command.main, model, unlabelled(tmp_path / "all.csv", MANY), "--count", 12, "-o", tmp_path / "next.csv")
    lines = (tmp_path / "next.csv").read_text(encoding="utf-8-sig").splitlines()
    filled = [lines[0], *(line.replace(",,", f",{row % 6},", 1) for row, line in enumerate(lines[1:]))]
    (tmp_path / "next.csv").write_text("\n".join(filled), encoding="utf-8")
    chunk = next(PairFile.open(tmp_path / "next.csv").chunks())
    assert chunk.label.tolist() == [row % 6 for row in range(12)]
    shown = run_inside(command.main, model, tmp_path / "all.csv", "--labelled", tmp_path / "next.csv", "--json")
    again = {(row["sentence1"], row["sentence2"]) for row in json.loads(shown.stdout)}
    assert len(again) == 88
    assert not again & set(zip(chunk.sentence1, chunk.sentence2, strict=True))


def test_a_pair_is_suggested_once_and_no_text_with_itself(model, tmp_path):
    one, two = PAIRS[0][:2]
    file = unlabelled(tmp_path / "all.csv", [(one, two), (two, one), (one, two.upper()), (one, one), PAIRS[1]])
    shown = run_inside(command.main, model, file, "--json")
    assert sorted(row["line1"] for row in json.loads(shown.stdout)) == ["2", "6"]


def test_what_a_spreadsheet_would_run_is_text(model, tmp_path):
    file = unlabelled(tmp_path / "all.csv", [("=the man", "@a dog"), ("the cat", "-a horse")])
    for words in (("-o", tmp_path / "next.csv"), ()):
        shown = run_inside(command.main, model, file, *words)
        text = (tmp_path / "next.csv").read_text(encoding="utf-8-sig") if words else shown.stdout
        cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "@")) or cell == "-a horse"]
        assert {"=the man", "@a dog", "-a horse"} <= set(map(from_cell, cells))


def test_a_model_without_a_threshold_says_so(tiny_folder, tmp_path):
    shown = run_inside(command.main, tiny_folder, unlabelled(tmp_path / "all.csv", MANY), "--count", 2, "--by", "threshold")
    assert shown.returncode == 0, shown.stderr
    assert "near the cosine 0.5000 (this model has no threshold of its own" in shown.stderr
    assert next(csv.DictReader(shown.stdout.splitlines()))["predicted"] == ""


def test_bad_usage_is_one_line_each_and_writes_nothing(model, tmp_path):
    pairs, target = unlabelled(tmp_path / "all.csv", PAIRS), tmp_path / "next.csv"
    done = write_pairs(tmp_path / "done.csv")
    (tmp_path / "empty.csv").write_text("")
    other = write_list(tmp_path / "list.csv", ["a dog", "a cat"])
    for words, said in (
        ((pairs, "--count", 0), "--count 0: give 1 or more"),
        ((pairs, "-o", tmp_path), "it should be a file, not a link or a device, in a folder"),
        ((pairs, "-o", pairs), "would replace a file that is read"),
        ((pairs, "--id-a", "id"), "--id-a is of two lists"),
        ((pairs, "--labelled", done), "No pair is left: each is labelled already"),
        ((pairs, "--labelled", tmp_path / "none.csv"), "none.csv"),
        ((tmp_path / "empty.csv",), "is empty"),
        (
            (other,),
            "which columns hold the two sentences? The first row: 1 'id', 2 'text'. Say which: --column-a",
        ),
        ((other, tmp_path / "empty.csv"), "is empty"),
        ((other, tmp_path / "none.csv"), "none.csv"),
    ):
        shown = run_inside(command.main, model, *words, *(() if "-o" in words else ("-o", target)))
        assert (shown.returncode, shown.stdout) == (2, ""), (words, shown.stdout, shown.stderr)
        lines = [line for line in shown.stderr.splitlines() if line.split()[0] not in ("model", "note:", "texts", "pairs")]
        assert len(lines) == 1, (words, shown.stderr)
        assert said in lines[0], (words, shown.stderr)
        assert not target.exists()
    assert run_inside(command.main, tmp_path, pairs).returncode == 2  # a folder that is no model


def test_lists_of_one_text_and_of_equal_texts(model, tmp_path):
    one = write_list(tmp_path / "one.csv", ["a dog"])
    shown = run_inside(command.main, model, one, write_list(tmp_path / "same.csv", ["the cat", "The  cat", "a dog"]), "--json")
    assert [(row["sentence1"], row["sentence2"]) for row in json.loads(shown.stdout)] == [("a dog", "the cat")]
    shown = run_inside(command.main, model, one, one)
    assert shown.returncode == 2
    assert "No pair is left" in shown.stderr


def test_a_full_disk_leaves_no_file(model, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "out").mkdir()
    shown = run_inside(command.main, model, unlabelled(tmp_path / "all.csv", PAIRS), "-o", tmp_path / "out" / "next.csv")
    assert (shown.returncode, shown.stdout) == (1, "")
    assert shown.stderr.splitlines()[-1] == "The pairs could not be written: [Errno 28] No space left on device"
    assert not list((tmp_path / "out").iterdir())


def test_help_has_two_examples():
    assert run_inside(command.main, "--help").stdout.count("  python -m tools.suggest ") == 2
