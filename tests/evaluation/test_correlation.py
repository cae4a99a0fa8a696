"""Correlations and binary figures against scipy and scikit-learn; the bootstrap against one drawn pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats
from sklearn import metrics as sklearn_metrics

from connection.data import correlation as metrics
from connection.evaluation import binary, bootstrap

# Few distinct scores, so that ties are the rule; labels of one class and single pairs come up too.
SCORED = some.lists(some.tuples(some.integers(-3, 3).map(lambda n: n / 3), some.booleans()), min_size=1, max_size=30)


def columns(pairs):
    return np.array([pair[0] for pair in pairs], float), np.array([pair[1] for pair in pairs])


def example(n, seed=1):
    random = np.random.default_rng(seed)
    label = random.integers(0, 6, size=n).astype(float)
    return label, np.round(label + random.normal(scale=3, size=n), 1), label + random.normal(scale=1, size=n)


# --- correlations ------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("constant", [1.0, 0.1, 1e-8, 3.3e7])
@pytest.mark.parametrize("n", [1, 3, 5, 1000])
def test_constant_predictions_have_no_correlation(constant, n):
    """Not even one made of the rounding of their mean."""
    for correlation in (metrics.spearman, metrics.pearson):
        assert math.isnan(correlation(np.full(n, constant), np.arange(n)))
        assert math.isnan(correlation(np.arange(n), np.full(n, constant)))


def test_what_is_no_number_has_no_correlation():
    label, base, final = example(30)
    for wrong in (math.nan, math.inf):
        base[3] = wrong
        assert math.isnan(metrics.spearman(base, label))
        assert math.isnan(metrics.pearson(base, label))
        drawn = bootstrap.resampled(label, [base, final])
        assert np.isnan(drawn[:, 0]).all()
        assert np.isfinite(drawn[:, 1]).all()


# --- the bootstrap -----------------------------------------------------------------------------------------------------


def test_each_resample_equals_scipy_on_the_pairs_drawn():
    """The same generator's draws, pair by pair: ranks and sums from weights are those of the pairs themselves."""
    label, base, final = example(40)
    found = bootstrap.resampled(label, [base, final], seed=5)
    draws = np.random.default_rng(5).integers(0, 40, size=(bootstrap.DRAWS_AT_ONCE // 40, 40), dtype=np.int32)
    for resample in range(50):
        i = draws[resample]
        for model, prediction in enumerate((base, final)):
            assert found[0, model, resample] == pytest.approx(stats.spearmanr(prediction[i], label[i]).statistic, abs=1e-10)
            assert found[1, model, resample] == pytest.approx(stats.pearsonr(prediction[i], label[i]).statistic, abs=1e-10)


def test_gain_and_its_interval():
    label, base, final = example(120)
    drawn = bootstrap.resampled(label, [base, final])
    gain = bootstrap.gain(label, base, final, drawn)
    for kind, start, peer in (("spearman", "", stats.spearmanr), ("pearson", "pearson_", stats.pearsonr)):
        expected = peer(final, label).statistic - peer(base, label).statistic
        assert gain[kind] == pytest.approx(expected, abs=1e-12)

        def difference(label, base, final, peer=peer):
            return peer(final, label).statistic - peer(base, label).statistic

        other = stats.bootstrap((label, base, final), difference, paired=True, vectorized=False, n_resamples=1500,
                                method="percentile", rng=np.random.default_rng(2)).confidence_interval  # fmt: skip
        assert gain[f"{start}low"] == pytest.approx(other.low, abs=0.02)
        assert gain[f"{start}high"] == pytest.approx(other.high, abs=0.02)
    ends = bootstrap.intervals(drawn[:, 1])
    assert ends["spearman_low"] < metrics.spearman(final, label) < ends["spearman_high"]
    assert ends["pearson_low"] < metrics.pearson(final, label) < ends["pearson_high"]


def test_p_of_a_gain_is_small_where_there_is_one_and_uniform_where_there_is_none(monkeypatch):
    label, base, final = example(300)
    drawn = bootstrap.resampled(label, [base, final])
    assert bootstrap.gain(label, base, final, drawn)["p"] == pytest.approx(2 / (bootstrap.RESAMPLES + 1))
    assert bootstrap.gain(label, final, base, drawn[:, ::-1])["p"] == pytest.approx(2 / (bootstrap.RESAMPLES + 1))
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1000)
    found = []
    for seed in range(60):
        random = np.random.default_rng(seed)
        label = random.normal(size=60)
        one, two = (label + random.normal(size=60) for _ in range(2))
        drawn = bootstrap.resampled(label, [one, two])
        found.append(bootstrap.gain(label, one, two, drawn)["p"])
    assert stats.kstest(found, "uniform").pvalue > 0.001


def test_no_gain_against_itself():
    label = np.arange(30.0)
    prediction = np.sin(label)
    gain = bootstrap.gain(label, prediction, prediction, bootstrap.resampled(label, [prediction, prediction]))
    assert {gain[key] for key in ("spearman", "low", "high", "pearson", "pearson_low", "pearson_high")} == {0}
    assert gain["p"] == gain["pearson_p"] == 1


@pytest.mark.parametrize("n", [0, 1, 2, 9])
def test_too_few_pairs_have_no_interval(n):
    label, base, final = example(n)
    drawn = bootstrap.resampled(label, [base, final])
    gain = bootstrap.gain(label, base, final, drawn)
    assert all(math.isnan(gain[key]) for key in ("low", "high", "p", "pearson_low", "pearson_high", "pearson_p"))
    assert all(math.isnan(value) for value in bootstrap.intervals(drawn[:, 0]).values())


def test_constant_predictions_have_no_interval_and_no_gain():
    label, _, final = example(50)
    for constant in (np.full(50, 0.1), np.full(50, -1e-8)):
        drawn = bootstrap.resampled(label, [constant, final])
        assert np.isnan(drawn[:, 0]).all()
        assert np.isfinite(drawn[:, 1]).all()
        assert all(math.isnan(value) for value in bootstrap.gain(label, constant, final, drawn).values())


def test_an_interval_of_few_defined_resamples_is_left_out():
    """One pair of 12 differs: more than a third of the resamples lack it and are undefined."""
    label, one = np.arange(12.0), np.array([1.0] + [0.0] * 11)
    drawn = bootstrap.resampled(label, [one])
    assert np.isnan(drawn[0, 0]).mean() == pytest.approx((11 / 12) ** 12, abs=0.02)
    assert np.array_equal(np.isnan(drawn[0, 0]), np.isnan(drawn[1, 0]))
    low, high = bootstrap.interval(drawn[0, 0])
    assert -1 <= low <= high < 0
    assert math.isnan(bootstrap.interval(np.array([np.nan, np.nan, 0.5]))[0])


def test_large_files_are_resampled_less_often():
    assert [bootstrap.resamples_for(n) for n in (1, 40_000, 80_000, 10_000_000)] == [10_000, 10_000, 5_000, 1_000]


# --- binary labels -----------------------------------------------------------------------------------------------------


@given(SCORED)
@settings(max_examples=200, deadline=None)
def test_average_precision_and_auc_equal_scikit_learn(pairs):
    score, positive = columns(pairs)
    if positive.all() or not positive.any():
        assert math.isnan(binary.average_precision(score, positive))
        assert math.isnan(binary.roc_auc(score, positive))
        assert math.isnan(binary.best_threshold(score, positive))
        return
    assert binary.average_precision(score, positive) == pytest.approx(sklearn_metrics.average_precision_score(positive, score))
    assert binary.roc_auc(score, positive) == pytest.approx(sklearn_metrics.roc_auc_score(positive, score))


@given(SCORED, some.integers(-4, 4).map(lambda n: n / 3))
@settings(max_examples=200, deadline=None)
def test_figures_at_a_threshold_equal_scikit_learn(pairs, threshold):
    score, positive = columns(pairs)
    called = score >= threshold
    found = binary.at_threshold(score, positive, threshold)
    for name, peer in (("f1", sklearn_metrics.f1_score), ("precision", sklearn_metrics.precision_score),
                       ("recall", sklearn_metrics.recall_score)):  # fmt: skip
        assert found[name] == pytest.approx(peer(positive, called, zero_division=np.nan), nan_ok=True), name
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(positive, called))
    if 0 < positive.sum() < len(positive) and 0 < called.sum() < len(called):
        assert found["mcc"] == pytest.approx(sklearn_metrics.matthews_corrcoef(positive, called))
    else:
        assert math.isnan(found["mcc"])


@given(SCORED)
@settings(max_examples=200, deadline=None)
def test_no_threshold_has_a_better_f1(pairs):
    score, positive = columns(pairs)
    threshold = binary.best_threshold(score, positive)
    if math.isnan(threshold):
        return
    best = sklearn_metrics.f1_score(positive, score >= threshold)
    assert best == pytest.approx(max(sklearn_metrics.f1_score(positive, score >= other) for other in score))
    assert score.min() <= threshold <= score.max()


def test_an_unknown_threshold_has_no_figures():
    found = binary.at_threshold(np.array([0.1, 0.9]), np.array([False, True]), math.nan)
    assert all(math.isnan(value) for value in found.values())


def test_resampled_average_precision_is_scikit_learns_of_each_resample(monkeypatch):
    monkeypatch.setattr(bootstrap, "RESAMPLES", 1000)
    generator = np.random.default_rng(3)
    positive = generator.random(40) < 0.4
    scores = [generator.random(40).round(1) + 0.3 * positive, generator.random(40)]
    found = bootstrap.resampled_average_precision(positive, scores)
    weights = np.concatenate([block for _, block in bootstrap._draws(40, 0)])
    assert found.shape == (2, 1000)
    for number in range(0, 1000, 97):
        rows = np.repeat(np.arange(40), weights[number].astype(int))
        for score, values in zip(scores, found, strict=True):
            assert values[number] == pytest.approx(sklearn_metrics.average_precision_score(positive[rows], score[rows]))
    assert np.isnan(bootstrap.resampled_average_precision(np.ones(40, bool), scores)).all()
