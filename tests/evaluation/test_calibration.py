"""What is fitted on dev pairs, against scikit-learn: the isotonic mapping and the calibration curve."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from sklearn.calibration import calibration_curve as sklearn_curve
from sklearn.isotonic import IsotonicRegression

from connection.data.labels import LabelScale
from connection.evaluation.calibration import calibration_curve, fit_calibration, is_binary, isotonic
from connection.model.calibration import Calibration

GRADED, BINARY = LabelScale(0, 5, "graded", ""), LabelScale(0, 1, "binary", "")
POINTS = some.lists(some.tuples(some.integers(-5, 5).map(lambda n: n / 5), some.integers(0, 5)), min_size=1, max_size=40)


@given(POINTS)
@settings(max_examples=300, deadline=None)
def test_isotonic_equals_scikit_learn(points):
    cosine, label = (np.array(column, float) for column in zip(*points, strict=True))
    peer = IsotonicRegression(out_of_bounds="clip").fit(cosine, label)
    fitted = Calibration(None, isotonic(cosine, label))
    everywhere = np.linspace(-1.2, 1.2, 101)
    assert np.allclose(fitted.label(everywhere), peer.predict(everywhere), atol=1e-9)
    assert fitted.knots
    assert (np.diff(fitted.knots[0]) > 0).all()
    assert (np.diff(fitted.knots[1]) >= 0).all()


def test_isotonic_of_many_pairs_equals_scikit_learn():
    random = np.random.default_rng(0)
    cosine = random.uniform(-1, 1, 20_000)
    label = np.clip(cosine * 5 + random.normal(size=20_000), 0, 5).astype(np.float32)
    assert np.allclose(
        Calibration(None, isotonic(cosine, label)).label(cosine), IsotonicRegression().fit_transform(cosine, label)
    )


def test_a_perfect_order_with_one_outlier_takes_no_longer():
    """The unkind case: the last pair pools all before it, one by one."""
    cosine, label = np.linspace(0, 1, 50_000), np.arange(50_000.0)
    label[-1] = -1e12
    assert len(set(isotonic(cosine, label)[1])) == 1


@given(POINTS)
@settings(max_examples=100, deadline=None)
def test_what_is_fitted_survives_json(points):
    cosine, label = (np.array(column, float) for column in zip(*points, strict=True))
    for scale, labels in ((GRADED, label), (BINARY, (label > 2).astype(float))):
        fitted = fit_calibration(cosine, labels, scale)
        again = Calibration.from_json(json.loads(json.dumps({"label_min": 0, **fitted.as_json()})))
        assert again == fitted
        if len(set(labels)) < 2:
            assert fitted == Calibration()
            assert np.isnan(fitted.label(cosine)).all()
        else:
            assert (fitted.threshold is not None) == is_binary(labels, scale)
            assert labels.min() <= fitted.label(cosine).min() <= fitted.label(cosine).max() <= labels.max()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"threshold": "0.5"}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"threshold": math.nan}, "threshold"),
        ({"calibration": [1, 2]}, "calibration"),
        ({"calibration": {"cosine": [], "label": []}}, "calibration"),
        ({"calibration": {"cosine": [0.1, "x"], "label": [1, 2]}}, "calibration"),
        ({"calibration": {"cosine": [0.1, 0.2], "label": [1]}}, "ascend"),
        ({"calibration": {"cosine": [0.2, 0.1], "label": [1, 2]}}, "ascend"),
        ({"calibration": {"cosine": [0.1, 0.2], "label": [2, 1]}}, "ascend"),
    ],
)
def test_damaged_content_is_refused(content, what):
    with pytest.raises(ValueError, match=what):
        Calibration.from_json(content)


def test_binary_means_the_ends_of_the_scale():
    assert is_binary(np.array([0, 5, 5], np.float32), GRADED)
    assert is_binary(np.array([0.1, 0.9], np.float32), LabelScale(0.1, 0.9, "graded", ""))
    assert not is_binary(np.array([0, 1], np.float32), GRADED)


def test_calibration_curve_equals_scikit_learn():
    random = np.random.default_rng(1)
    cosine = random.uniform(size=503)
    label = (random.uniform(size=503) < cosine**2).astype(float)
    curve = calibration_curve(cosine, cosine, label)
    share, mean = sklearn_curve(label, cosine, n_bins=10, strategy="quantile")
    assert [row["label"] for row in curve] == pytest.approx(share)
    assert [row["predicted"] for row in curve] == [row["cosine"] for row in curve] == pytest.approx(mean)
    assert sum(row["pairs"] for row in curve) == 503


def test_equal_cosines_share_a_bin():
    cosine = np.array([0.5] * 30 + [0.1, 0.9])
    curve = calibration_curve(cosine, cosine, np.arange(32.0))
    assert [row["pairs"] for row in curve] == [31, 1]
    assert [row["pairs"] for row in calibration_curve(np.ones(4), np.ones(4), np.ones(4))] == [4]
    assert calibration_curve(*(np.zeros(0),) * 3) == []
