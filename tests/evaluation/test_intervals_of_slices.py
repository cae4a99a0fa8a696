"""What the report draws of slices and labels: intervals of a mean, and how often each label occurs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from connection.evaluation.slices import MOST_COUNTED, count_labels, mean_interval


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    amounts = np.random.default_rng(0).gamma(2, size=200)
    wanted = stats.norm.interval(0.95, loc=amounts.mean(), scale=stats.sem(amounts))
    assert mean_interval(amounts) == pytest.approx(wanted, rel=1e-4)
    assert mean_interval(np.array([0.0] * 19 + [1.0]))[0] == 0.0  # an amount is never below 0
    assert np.isnan(mean_interval(amounts[:9])).all()


def test_labels_are_counted_each_or_in_bands():
    assert count_labels(np.array([5, 0, 0, 2.5], np.float32), 0, 5) == [[0.0, 2], [2.5, 1], [5.0, 1]]
    label = np.random.default_rng(0).uniform(0, 5, 1_000)
    found = np.array(count_labels(label, 5, 0))  # a reversed scale
    assert len(found) == MOST_COUNTED
    assert found[:, 1].tolist() == np.histogram(label, 20, (0, 5))[0].tolist()
    assert found[:2, 0].tolist() == pytest.approx([0.125, 0.375])
