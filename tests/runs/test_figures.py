"""The figures that a run measures, keeps and saves with its model: computed again by other libraries."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics
from sklearn.isotonic import IsotonicRegression

import bertFineTuningWithConnectionData as driver
from connection.model.calibration import Calibration
from connection.reports.tables import gain_sentence
from connection.system.errors import InputError
from ConnectionBert import ConnectionBert
from tests.conftest import CANDIDATES, MANY, binary, run_inside, train_and_test
from tools import similarity


def test_a_run_on_binary_labels_fits_a_threshold_on_dev_and_applies_it_to_test(tiny_folder, tmp_path):
    shown, results, table = train_and_test(tiny_folder, tmp_path / "run", binary(MANY))
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
    assert results["measure"] == "average_precision"  # it chose the weights, and is the headline
    of_epochs = [row["dev average precision"] for row in results["epoch_figures"]]
    assert results["final"]["dev"]["average_precision"] == max(of_epochs)
    assert max(of_epochs) == pytest.approx(sklearn_metrics.average_precision_score(dev["label"], dev["final"]))
    gain = results["gain"]["test"]
    peers = [sklearn_metrics.average_precision_score(test["label"], test[when]) for when in ("base", "final")]
    assert gain["average_precision"] == pytest.approx(peers[1] - peers[0])
    assert gain["average_precision_low"] <= gain["average_precision"] <= gain["average_precision_high"]
    assert "points of average precision x 100 on the test pairs" in shown
    assert re.search(rf"\n +test +30 +{100 * peers[0]:.2f} +{100 * peers[1]:.2f} ", shown)


def test_a_run_on_graded_labels_maps_cosines_to_them(tiny_folder, tmp_path):
    shown, results, table = train_and_test(tiny_folder, tmp_path / "run", MANY)
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
    assert results["measure"] == "spearman"
    assert "points of Spearman x 100 on the test pairs" in shown
    assert "mean absolute error (labels)" in shown


def test_a_run_on_several_candidates_a_sentence_ranks_them(tiny_folder, tmp_path):
    shown, results, _ = train_and_test(tiny_folder, tmp_path / "run", MANY[:40] + CANDIDATES)
    assert results["final"]["test"]["ranking"]["queries"] > 0
    assert 0 < results["final"]["test"]["ranking"]["ndcg@10"] <= 1
    assert "MRR@10" in shown
    assert "tied candidates" in shown


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
    train_and_test(tiny_folder, tmp_path / "one", binary(MANY))
    words = ["--train-file", tmp_path / "one-train.csv", "--test-file", tmp_path / "one-test.csv", "--allow", "contradiction"]
    flags = ["--output-dir", tmp_path / "two", "--epochs", 1, "--max-length", 32]
    shown = run_inside(driver.main, "--model-dir", tmp_path / "one" / "model", *words, *flags)
    assert shown.returncode == 0, shown.stderr
    assert ConnectionBert.load(tmp_path / "two" / "model").calibration == Calibration()


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
