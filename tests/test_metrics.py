"""Correlations against scipy; the bootstrap interval against one drawn pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from connection import metrics


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 3, 50, 1379])
def test_correlations_equal_scipy(n, ties):
    random = np.random.default_rng(n)
    x = random.normal(size=n)
    y = x + random.normal(size=n)
    if ties and n > 3:
        x, y = np.round(x), np.round(y)
    assert metrics.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert metrics.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


def test_constant_predictions_have_no_correlation():
    assert math.isnan(metrics.spearman(np.ones(5), np.arange(5)))
    assert math.isnan(metrics.pearson(np.arange(5), np.ones(5)))


def test_gain_and_its_interval(monkeypatch):
    random = np.random.default_rng(1)
    label = random.integers(0, 6, size=120).astype(float)
    base = label + random.normal(scale=3, size=120)
    final = label + random.normal(scale=1, size=120)
    gain = metrics.spearman_gain(label, base, final)
    expected = stats.spearmanr(final, label).statistic - stats.spearmanr(base, label).statistic
    assert gain["spearman"] == pytest.approx(expected, abs=1e-12)

    drawn = [random.integers(0, 120, size=120) for _ in range(2000)]
    gains = [stats.spearmanr(final[i], label[i]).statistic - stats.spearmanr(base[i], label[i]).statistic for i in drawn]
    low, high = np.percentile(gains, [2.5, 97.5])
    assert gain["low"] == pytest.approx(low, abs=0.015)
    assert gain["high"] == pytest.approx(high, abs=0.015)


def test_no_gain_against_itself():
    label = np.arange(30.0)
    prediction = np.sin(label)
    assert metrics.spearman_gain(label, prediction, prediction) == {"spearman": 0, "low": 0, "high": 0}
