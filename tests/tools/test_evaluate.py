"""tools.evaluate: its figures computed again by other libraries, and what it refuses."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from ConnectionBert import ConnectionBert
from tests.conftest import MANY, PAIRS, binary, run_inside, train_and_test, write_pairs
from tools import evaluate


@pytest.mark.parametrize("normalized", [False, True])
def test_every_similarity_equals_sentence_transformers(tiny_folder, tmp_path, normalized):
    from sentence_transformers import SentenceTransformer, util

    file = write_pairs(tmp_path / "pairs.csv", MANY)
    model = ConnectionBert.load(tiny_folder)
    model.normalized = normalized
    model.save(tmp_path / "saved")
    words = ["--similarity", "cosine,dot,euclidean,manhattan", "--json", tmp_path / "out.json"]
    shown = run_inside(evaluate.main, tmp_path / "saved", file, *words)
    assert shown.returncode == 0, shown.stderr
    peer = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    u, v = (peer.encode([row[side] for row in MANY], convert_to_tensor=True) for side in (0, 1))
    found = json.loads((tmp_path / "out.json").read_text())["files"][0]["model"]
    for name, function in (("cosine", util.pairwise_cos_sim), ("dot", util.pairwise_dot_score),
                           ("euclidean", util.pairwise_euclidean_sim), ("manhattan", util.pairwise_manhattan_sim)):  # fmt: skip
        values, label = function(u, v).double().numpy(), [row[2] for row in MANY]
        assert found[name]["spearman"] == pytest.approx(stats.spearmanr(values, label).statistic, abs=1e-3), name
        assert found[name]["pearson"] == pytest.approx(stats.pearsonr(values, label).statistic, abs=1e-4), name
        assert f"{100 * found[name]['spearman']:.2f}" in shown.stdout


def test_the_other_librarys_file_has_its_name_its_keys_and_its_values(tiny_folder, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    names = ["cosine", "dot", "euclidean", "manhattan"]
    file = write_pairs(tmp_path / "my.pairs.csv", MANY)
    (tmp_path / "ours").mkdir()
    ConnectionBert.load(tiny_folder).save(tmp_path / "saved")
    words = [
        tmp_path / "saved",
        file,
        "--similarity",
        ",".join(names),
        "--format",
        "sentence-transformers",
        "-o",
        tmp_path / "ours",
    ]
    shown = run_inside(evaluate.main, *words)
    assert shown.returncode == 0, shown.stderr
    one, two, label = (list(column) for column in zip(*MANY, strict=True))
    judge = EmbeddingSimilarityEvaluator(one, two, label, similarity_fn_names=names, name="my.pairs")
    judge(SentenceTransformer(str(tmp_path / "saved"), device="cpu"), output_path=str(tmp_path / "theirs"))
    (ours,), (theirs,) = ((tmp_path / folder).iterdir() for folder in ("ours", "theirs"))
    assert ours.name == theirs.name == "similarity_evaluation_my.pairs_results.csv"
    assert str(ours) in shown.stdout
    found, wanted = (list(csv.reader(path.read_text().splitlines())) for path in (ours, theirs))
    assert found[0] == wanted[0]
    assert [float(value) for value in found[1]] == pytest.approx([float(value) for value in wanted[1]], abs=1e-3)
    again = run_inside(evaluate.main, *words)
    assert again.returncode == 2
    assert f"{ours} is there already" in again.stderr


def test_several_files_and_a_folder_have_one_table_and_a_mean(tiny_folder, tmp_path):
    (tmp_path / "sts").mkdir()
    write_pairs(tmp_path / "sts" / "a.csv", MANY[:50])
    write_pairs(tmp_path / "sts" / "b.tsv", MANY[50:], delimiter="\t")
    (tmp_path / "sts" / "LICENSE.txt").write_text("free\n")
    (tmp_path / "sts" / "notes.md").write_text("# notes\n")
    other = write_pairs(tmp_path / "other.csv", [(one, two, 20 * score) for one, two, score in MANY])
    shown = run_inside(evaluate.main, tiny_folder, tmp_path / "sts", other, "--json", tmp_path / "out.json")
    assert shown.returncode == 0, shown.stderr
    content = json.loads((tmp_path / "out.json").read_text())
    assert [row["file"].rsplit("/")[-1] for row in content["files"]] == ["a.csv", "b.tsv", "other.csv"]
    assert [row["label_max"] for row in content["files"]] == [5, 5, 100]
    for kind in ("spearman", "pearson"):
        each = [row["model"]["cosine"][kind] for row in content["files"]]
        assert content["mean"]["cosine"][kind] == pytest.approx(np.mean(each))
    assert re.search(r"mean of 3 +cosine +200 +-?\d", shown.stdout)


def test_against_itself_as_base_nothing_is_gained_and_against_another_the_gain_is_the_difference(tiny_folder, tmp_path):
    file = write_pairs(tmp_path / "pairs.csv", MANY)
    model = ConnectionBert.load(tiny_folder, pooling="cls")
    model.save(tmp_path / "cls")
    for base in (tiny_folder, tmp_path / "cls"):
        shown = run_inside(evaluate.main, tiny_folder, file, "--base", base, "--json", tmp_path / "out.json")
        assert shown.returncode == 0, shown.stderr
        row = json.loads((tmp_path / "out.json").read_text())["files"][0]
        gain, figures = row["gain"]["cosine"], [row[who]["cosine"]["spearman"] for who in ("model", "base")]
        assert gain["spearman"] == pytest.approx(figures[0] - figures[1])
        assert "against the base on pairs.csv" in shown.stdout
        assert (gain["p"] == 1) == (base == tiny_folder)
        assert gain["low"] <= gain["spearman"] <= gain["high"]


def test_a_dev_file_gives_the_threshold_that_the_model_lacks(tiny_folder, tmp_path):
    dev, test = (
        write_pairs(tmp_path / f"{name}.csv", binary(rows)) for name, rows in (("dev", MANY[:50]), ("test", MANY[50:]))
    )
    out = tmp_path / "out.json"
    shown = run_inside(evaluate.main, tiny_folder, test, "--base", tiny_folder, "--json", out)
    assert shown.returncode == 0, shown.stderr
    assert "f1" not in json.loads(out.read_text())["files"][0]["model"]["cosine"]["binary"]
    shown = run_inside(evaluate.main, tiny_folder, test, "--base", tiny_folder, "--json", out, "--dev-file", dev)
    assert shown.returncode == 0, shown.stderr
    row = json.loads(out.read_text())["files"][0]
    found = row["model"]["cosine"]["binary"]
    one, two, label = (list(column) for column in zip(*binary(MANY), strict=True))
    cosine = ConnectionBert.load(tiny_folder).similarity(one, two)
    on_dev = [sklearn_metrics.f1_score(label[:50], cosine[:50] >= cut) for cut in [found["threshold"], *cosine[:50]]]
    assert on_dev[0] == pytest.approx(max(on_dev))
    assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(label[50:], cosine[50:] >= found["threshold"]))
    assert row["base"]["cosine"]["binary"] == found


def test_what_the_model_holds_is_used_on_its_own_scale_alone(tiny_folder, tmp_path):
    train_and_test(tiny_folder, tmp_path / "run", MANY)
    same = write_pairs(tmp_path / "same.csv", MANY)
    other = write_pairs(tmp_path / "other.csv", [(one, two, 20 * score) for one, two, score in MANY])
    two_labels = write_pairs(tmp_path / "two.csv", binary(MANY))
    words = ["--json", tmp_path / "out.json"]
    shown = run_inside(evaluate.main, tmp_path / "run" / "model", same, other, two_labels, *words)
    assert shown.returncode == 0, shown.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["files"]
    assert [row["label_max"] for row in rows] == [5, 100, 1]
    assert ["graded" in row["model"]["cosine"] for row in rows] == [True, False, False]
    assert ["binary" in row["model"]["cosine"] for row in rows] == [False, False, True]
    assert "threshold" not in rows[2]["model"]["cosine"]["binary"]


def test_undefined_figures_are_null_and_shown_as_such(tiny_folder, tmp_path):
    same = write_pairs(tmp_path / "same.csv", [("a dog", "a cat", score) for score in (0, 1, 2, 3)])
    one = write_pairs(tmp_path / "one.csv", [("a dog", "a cat", 1), ("a horse", "a book", 1)])
    shown = run_inside(evaluate.main, tiny_folder, same, one, "--base", tiny_folder, "--json", tmp_path / "out.json")
    assert shown.returncode == 0, shown.stderr
    assert "n/a" in shown.stdout
    assert "nan" not in shown.stdout.lower()
    content = json.loads((tmp_path / "out.json").read_text())
    for row in content["files"]:
        assert row["model"]["cosine"]["spearman"] is row["gain"]["cosine"]["low"] is row["gain"]["cosine"]["p"] is None
    assert content["files"][1]["model"]["cosine"]["binary"]["roc_auc"] is None
    assert content["mean"]["cosine"]["spearman"] is None


def test_bad_rows_stop_or_are_left_out_and_counted(tiny_folder, tmp_path):
    bad = write_pairs(tmp_path / "bad.csv", [*PAIRS, ("", "b", 3), ("a", "b", "high")])
    shown = run_inside(evaluate.main, tiny_folder, bad)
    assert shown.returncode == 2
    assert f"{bad}, line 10: column sentence1: blank" in shown.stderr
    assert "--on-bad-rows skip" in shown.stderr
    shown = run_inside(evaluate.main, tiny_folder, bad, "--on-bad-rows", "skip")
    assert shown.returncode == 0, shown.stderr
    assert "2 bad rows left out" in shown.stdout


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["absent.csv"], "absent.csv"),
        (["empty"], "folder without pair files"),
        (["pairs.csv", "--similarity", "cosine,angle"], "'angle'"),
        (["pairs.csv", "--similarity", ""], "''"),
        (["pairs.csv", "--base", "nowhere"], "nowhere"),
        (["pairs.csv", "--json", "nowhere/out.json"], "--json"),
        (["pairs.csv", "--json", "empty"], "--json"),
        (["pairs.csv", "--dev-file", "absent.csv"], "absent.csv"),
        (["pairs.csv", "--columns", "sentence1=x"], "--columns"),
        (["pairs.csv", "--label-min", "5", "--label-max", "1"], "label scale"),
        (["pairs.csv", "--label-min", "100"], "outside"),
        (["pairs.csv", "--label-max", "inf"], "finite"),
        (["hole.csv"], "no rows"),
        (["pairs.csv", "--format", "mteb"], "--format"),
        (["pairs.csv", "--format", "sentence-transformers", "-o", "nowhere"], "--output"),
        (["pairs.csv", "pairs.csv", "--format", "sentence-transformers"], "one name"),
    ],
)
def test_bad_usage_is_refused(tiny_folder, tmp_path, monkeypatch, words, what):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "pairs.csv")
    write_pairs(tmp_path / "hole.csv", [])
    (tmp_path / "empty").mkdir()
    shown = run_inside(evaluate.main, tiny_folder, *words)
    assert shown.returncode == 2
    assert what in shown.stderr
    assert "Traceback" not in shown.stderr


def test_figures_that_cannot_be_written_are_a_failure(tiny_folder, pair_file):
    full = Path("/dev/full")  # a disk without room
    if not full.exists():
        pytest.skip("only Linux has /dev/full")
    shown = run_inside(evaluate.main, tiny_folder, pair_file, "--json", full)
    assert shown.returncode == 1
    assert "could not be written" in shown.stderr


def test_the_public_leaderboards_figure(minilm, public_data):
    """all-MiniLM-L6-v2 on STSb test: 82.03 on the public leaderboard."""
    shown = run_inside(evaluate.main, minilm, public_data / "stsb" / "stsb-en-test.csv")
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"cosine +1379 +82\.03 ", shown.stdout)


def test_labels_in_an_unclear_writing_are_not_skipped(tiny_folder, tmp_path):
    rows = [(one, two, label) for (one, two, _), label in zip(PAIRS, ["1.000", "200", "800", "500"] * 2, strict=True)]
    file = write_pairs(tmp_path / "pairs.csv", rows)
    shown = run_inside(evaluate.main, tiny_folder, file, "--on-bad-rows", "skip")
    assert shown.returncode == 2
    assert "'1.000' is not clear" in shown.stderr
    assert "--on-bad-rows" not in shown.stderr
