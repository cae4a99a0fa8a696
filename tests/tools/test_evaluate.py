"""tools.evaluate and tools.compare, and the figures that training keeps: computed again by other libraries."""

from __future__ import annotations

import errno
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn import metrics as sklearn_metrics
from sklearn.isotonic import IsotonicRegression

import bertFineTuningWithConnectionData as driver
from connection.data.pair_file import PairFile
from connection.data.pair_store import load_pairs
from connection.evaluation.similarity import pair_similarities, remembered_cosines
from connection.model.calibration import Calibration
from connection.reports.tables import gain_sentence
from connection.system.errors import InputError
from ConnectionBert import ConnectionBert
from tests.conftest import PAIRS, run_inside, write_pairs
from tools import compare, evaluate, similarity

WORDS = "man woman dog cat horse book city night park guitar".split()
# 100 pairs: ten candidates for each of ten first sentences.
MANY = [(f"the {a} sees a {b}", f"a {b} is not in the {c}", (i * j) % 6)
        for i, a in enumerate(WORDS) for j, (b, c) in enumerate(zip(WORDS, WORDS[::-1], strict=True))]  # fmt: skip
CANDIDATES = [(f"the {a} plays", row[1], (i + j) % 6) for i, a in enumerate(WORDS) for j, row in enumerate(MANY[:6])]


def binary(rows):
    return [(one, two, int(score > 2)) for one, two, score in rows]


def train(folder, output, rows, *flags):
    """A short run with dev and test files; its parsed results.json and predictions.csv."""
    files = {name: write_pairs(output.parent / f"{output.name}-{name}.csv", part) for name, part in
             (("train", rows[:40]), ("dev", rows[40:70]), ("test", rows[70:]))}  # fmt: skip
    words = [word for name, file in files.items() for word in (f"--{name}-file", file)]
    shown = run_inside(driver.main, "--model-dir", folder, *words, "--output-dir", output, "--max-length", 32, "--epochs", 1,
                       "--learning-rate", "1e-3", "--allow", "leaked-pair,contradiction", *flags)  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    return shown.stdout, json.loads((output / "results.json").read_text()), pd.read_csv(output / "predictions.csv")


# --- figures inside training -------------------------------------------------------------------------------------------


def test_a_run_on_binary_labels_fits_a_threshold_on_dev_and_applies_it_to_test(tiny_folder, tmp_path):
    shown, results, table = train(tiny_folder, tmp_path / "run", binary(MANY))
    dev, test = (table[table["split"] == part] for part in ("dev", "test"))
    assert (len(dev), len(test)) == (30, 30)
    for when in ("base", "final"):
        found = results[when]["test"]["binary"]
        called = test[when] >= found["threshold"]
        for name, peer in (("f1", sklearn_metrics.f1_score), ("precision", sklearn_metrics.precision_score),
                           ("recall", sklearn_metrics.recall_score), ("mcc", sklearn_metrics.matthews_corrcoef),
                           ("accuracy", sklearn_metrics.accuracy_score)):  # fmt: skip
            assert found[name] == pytest.approx(peer(test["label"], called)), name
        assert found["average_precision"] == pytest.approx(sklearn_metrics.average_precision_score(test["label"], test[when]))
        assert found["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(test["label"], test[when]))
        on_dev = [sklearn_metrics.f1_score(dev["label"], dev[when] >= cut) for cut in [found["threshold"], *dev[when]]]
        assert on_dev[0] == pytest.approx(max(on_dev))
        assert "f1" not in results[when]["dev"]["binary"]  # fitted there, it would flatter
        assert "graded" not in results[when]["test"]
        curve = results[when]["test"]["calibration"]
        assert sum(row["pairs"] for row in curve) == 30
        assert all(0 <= row[key] <= 1 for row in curve for key in ("predicted", "label"))
    model = ConnectionBert.load(tmp_path / "run" / "model")
    assert model.calibration.threshold == results["final"]["test"]["binary"]["threshold"]
    assert "threshold, fitted on dev" in shown
    report = (tmp_path / "run" / "report.html").read_text()
    assert "ROC AUC" in report
    assert "What a cosine stands for" in report
    assert gain_sentence(results["gain"]["test"]) in shown


def test_a_run_on_graded_labels_maps_cosines_to_them(tiny_folder, tmp_path):
    shown, results, table = train(tiny_folder, tmp_path / "run", MANY)
    dev, test = (table[table["split"] == part] for part in ("dev", "test"))
    for when in ("base", "final"):
        peer = IsotonicRegression(out_of_bounds="clip").fit(dev[when], dev["label"])
        error = sklearn_metrics.mean_absolute_error(test["label"], peer.predict(test[when]))
        assert results[when]["test"]["graded"]["mean_absolute_error"] == pytest.approx(error)
        assert results[when]["test"]["spearman"] == pytest.approx(stats.spearmanr(test[when], test["label"]).statistic)
        assert results[when]["test"]["pearson"] == pytest.approx(stats.pearsonr(test[when], test["label"]).statistic)
        assert (
            results[when]["test"]["spearman_low"] < results[when]["test"]["spearman"] < results[when]["test"]["spearman_high"]
        )
        assert not {"graded", "calibration"} & set(results[when]["dev"])
        assert "binary" not in results[when]["test"]
    fitted = ConnectionBert.load(tmp_path / "run" / "model").calibration
    assert fitted.threshold is None
    grid = np.linspace(-1, 1, 50)
    assert fitted.label(grid) == pytest.approx(peer.predict(grid), abs=1e-6)
    gain = results["gain"]["test"]
    assert gain["low"] <= gain["spearman"] <= gain["high"]
    assert 0 < gain["p"] <= 1
    assert set(results["gain"]) == {"test"}
    assert "points of Spearman x 100 on the test pairs" in shown
    assert "mean absolute error in label units" in shown


def test_a_run_on_several_candidates_a_sentence_ranks_them(tiny_folder, tmp_path):
    shown, results, _ = train(tiny_folder, tmp_path / "run", MANY[:40] + CANDIDATES)
    assert results["final"]["test"]["ranking"]["queries"] > 0
    assert 0 < results["final"]["test"]["ranking"]["ndcg@10"] <= 1
    assert "MRR@10" in shown
    assert "tied candidates (mean over their orders)" in shown


def test_without_dev_pairs_nothing_is_fitted_and_without_test_pairs_nothing_is_gained(tiny_folder, pair_file, tmp_path):
    flags = ["--model-dir", tiny_folder, "--train-file", pair_file, "--max-length", 32, "--epochs", 1, "--allow", "leaked-pair"]
    for part, other in (("dev", "test"), ("test", "dev")):
        shown = run_inside(driver.main, *flags, "--output-dir", tmp_path / part, f"--{part}-file", pair_file)
        assert shown.returncode == 0, shown.stderr
        results = json.loads((tmp_path / part / "results.json").read_text())
        assert other not in results["final"]
        assert ("gain" in results) == (part == "test")
        fitted = ConnectionBert.load(tmp_path / part / "model").calibration
        assert bool(fitted.knots) == (part == "dev")
        assert set(pd.read_csv(tmp_path / part / "predictions.csv")["split"]) == {part}
    assert "too few" in shown.stdout  # 8 pairs
    assert results["gain"]["test"]["low"] is None


def test_what_was_fitted_before_is_not_kept_by_a_run_that_fits_nothing(tiny_folder, tmp_path):
    train(tiny_folder, tmp_path / "one", binary(MANY))
    words = ["--train-file", tmp_path / "one-train.csv", "--test-file", tmp_path / "one-test.csv", "--allow", "contradiction"]
    flags = ["--output-dir", tmp_path / "two", "--epochs", 1, "--max-length", 32]
    shown = run_inside(driver.main, "--model-dir", tmp_path / "one" / "model", *words, *flags)
    assert shown.returncode == 0, shown.stderr
    assert ConnectionBert.load(tmp_path / "two" / "model").calibration == Calibration()


# --- what travels in a model folder ------------------------------------------------------------------------------------


def test_what_is_fitted_travels_with_the_model(tiny_folder, tmp_path):
    model = ConnectionBert.load(tiny_folder)
    model.labels, model.calibration = (0.0, 4.0), Calibration(0.25, ((-0.5, 0.5, 1.0), (1.0, 2.0, 3.5)))
    model.save(tmp_path / "saved")
    assert ConnectionBert.load(tmp_path / "saved").calibration == model.calibration
    assert ConnectionBert.load(tmp_path / "saved", pooling="cls").calibration == Calibration()  # other cosines
    shown = run_inside(similarity.main, tmp_path / "saved", "a dog", "a dog")
    assert "connected: the threshold is 0.2500" in shown.stdout
    assert "score  3.50 on the scale 0 to 4" in shown.stdout
    own = json.loads((tmp_path / "saved" / "connection.json").read_text())
    (tmp_path / "saved" / "connection.json").write_text(json.dumps(own | {"threshold": "high"}))
    with pytest.raises(InputError, match="threshold should be a number"):
        ConnectionBert.load(tmp_path / "saved")


# --- tools.evaluate ----------------------------------------------------------------------------------------------------


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
    train(tiny_folder, tmp_path / "run", MANY)
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


# --- tools.compare -----------------------------------------------------------------------------------------------------


@pytest.fixture
def two_runs(tiny_folder, tmp_path):
    for name, rate in (("a", "1e-5"), ("b", "3e-3")):
        train(tiny_folder, tmp_path / name, MANY, "--learning-rate", rate)
    return tmp_path / "a", tmp_path / "b"


def test_two_runs_side_by_side(two_runs):
    shown = run_inside(compare.main, *two_runs)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"learning_rate +1e-05 +0.003", shown.stdout)
    assert "output_dir" not in shown.stdout
    assert "epochs" not in shown.stdout
    tests = [table[table["split"] == "test"] for table in (pd.read_csv(run / "predictions.csv") for run in two_runs)]
    difference = [stats.spearmanr(table["final"], table["label"]).statistic for table in tests]
    verb = "gained" if difference[1] > difference[0] else "lost"
    assert f"B {verb} {100 * abs(difference[1] - difference[0]):.1f} +- " in shown.stdout
    assert "against A on the 30 test pairs of both" in shown.stdout
    for run in two_runs:
        figure = json.loads((run / "results.json").read_text())["final"]["test"]["spearman"]
        assert f"{100 * figure:.2f}" in shown.stdout
    assert "no setting differs" in run_inside(compare.main, two_runs[0], two_runs[0]).stdout


def test_the_order_of_the_test_pairs_does_not_count(two_runs):
    before = run_inside(compare.main, *two_runs).stdout
    table = pd.read_csv(two_runs[1] / "predictions.csv", dtype={"pair": str})
    table.iloc[::-1].to_csv(two_runs[1] / "predictions.csv", index=False)
    assert run_inside(compare.main, *two_runs).stdout == before


def test_runs_on_other_test_pairs_are_refused(tiny_folder, two_runs, tmp_path):
    train(tiny_folder, tmp_path / "c", MANY[:99])
    relabelled = [(one, two, 5 - score) for one, two, score in MANY]
    train(tiny_folder, tmp_path / "d", relabelled)
    for other in ("c", "d"):
        shown = run_inside(compare.main, two_runs[0], tmp_path / other)
        assert shown.returncode == 2
        assert "different pairs: 30 in" in shown.stderr
        assert "same --test-file" in shown.stderr


def test_folders_that_hold_no_finished_run_are_refused(two_runs, tmp_path):
    run, other = two_runs

    def refused(what):
        shown = run_inside(compare.main, other, run)
        assert shown.returncode == 2
        assert what in shown.stderr
        assert "Traceback" not in shown.stderr

    for name in ("settings.json", "results.json", "predictions.csv"):
        content = (run / name).read_text()
        (run / name).unlink()
        refused(name)
        for damaged in ("", "\0\1", "[]", content[: len(content) // 2], "split,line\ntest,x"):
            (run / name).write_text(damaged)
            refused(name)
        (run / name).write_text(content)
    results = json.loads((run / "results.json").read_text())
    wrong: dict[str, Any]
    for wrong in ({"final": 3}, {"final": {}}, {"final": {"test": []}}, {"final": {"test": {"spearman": "x"}}}):
        (run / "results.json").write_text(json.dumps(results | wrong))
        refused("results.json")
    assert run_inside(compare.main, tmp_path / "nowhere", run).returncode == 2


# --- the plain sentence ------------------------------------------------------------------------------------------------


def test_the_sentence_says_what_the_interval_says():
    gain = {"spearman": 0.021, "low": 0.015, "high": 0.027, "p": 0.0002}
    assert gain_sentence(gain) == (
        "Fine-tuning gained 2.1 +- 0.6 points of Spearman x 100 on the test pairs (95% interval +1.50 to +2.70, p < 0.001)."
    )
    lost = {"spearman": -0.021, "low": -0.027, "high": -0.015, "p": 0.012}
    assert "lost 2.1 +- 0.6 points" in gain_sentence(lost)
    assert "p = 0.012" in gain_sentence(lost)
    assert "may be chance" in gain_sentence({"spearman": 0.01, "low": -0.01, "high": 0.03, "p": 0.3})
    assert "chance" not in gain_sentence(gain) + gain_sentence(lost)
    for undefined in (None, math.nan):
        assert "too few" in gain_sentence(gain | {"low": undefined, "high": undefined, "p": undefined})


def test_base_cosines_are_remembered_and_never_of_another_model(tiny_folder, tmp_path, monkeypatch):
    model = ConnectionBert.load(tiny_folder)
    pairs = PairFile.open(write_pairs(tmp_path / "p.csv"))
    store = load_pairs(pairs, model.tokenizer, 32, -np.inf, np.inf, tmp_path / "store", False)
    cache, expected = tmp_path / "cache", pair_similarities(model, store)["cosine"]

    def remembered(places=slice(None)):
        return remembered_cosines(cache, model, {"dev": SimpleNamespace(store=store, places=places)})["dev"]

    assert np.array_equal(remembered(), expected)
    with monkeypatch.context() as patch:
        patch.setattr("connection.evaluation.similarity.pair_similarities", None)  # would fail if it were called
        assert np.array_equal(remembered(), expected)
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    assert np.array_equal(remembered(), expected)
    assert np.array_equal(remembered(slice(2)), expected[:2])
    with torch.no_grad():
        model.encoder.embeddings.word_embeddings.weight[7] *= 1.5
    assert np.array_equal(remembered(), pair_similarities(model, store)["cosine"])
    assert not np.array_equal(pair_similarities(model, store)["cosine"], expected)


def test_a_full_disk_leaves_nothing_of_the_remembered_cosines(tiny_folder, tmp_path, monkeypatch):
    model = ConnectionBert.load(tiny_folder)
    pairs = PairFile.open(write_pairs(tmp_path / "p.csv"))
    store = load_pairs(pairs, model.tokenizer, 32, -np.inf, np.inf, tmp_path / "store", False)

    def full(file, array):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    found = remembered_cosines(tmp_path / "cache", model, {"dev": SimpleNamespace(store=store, places=slice(None))})
    assert np.array_equal(found["dev"], pair_similarities(model, store)["cosine"])
    assert list((tmp_path / "cache").iterdir()) == []
