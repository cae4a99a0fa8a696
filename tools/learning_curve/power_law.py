"""Fits the law of a learning curve and forecasts with it: error = a + b * n^-c with a, b >= 0, for n labels.

The inverse power law of Figueroa et al. 2012 ("Predicting sample size required for classification performance", BMC Medical
Informatics and Decision Making 12:8) and of Hestness et al. 2017 (arXiv 1712.00409). The error here is 1 minus the
measure that decides: Spearman's correlation, or average precision of binary labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

EXPONENTS = np.geomspace(0.05, 2, 200)  # values of c that are tried; Hestness et al. saw 0.07 to 0.35, theory says 0.5 or 1
PARAMETERS = 3
RESAMPLES = 2000


def fit_power_law(labels: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least-squares a, b and c, (R,) each, for labels (P,) and errors (R, P), which are not negative.

    For each c in `EXPONENTS` the best a and b have a closed form: no start value is needed, and there is no local minimum.
    """
    x = labels[None, :] ** -EXPONENTS[:, None]  # (C, P)
    centred = x - x.mean(1, keepdims=True)
    b = np.maximum(centred @ errors.T / (centred**2).sum(1, keepdims=True), 0)  # (C, R)
    a = errors.mean(1) - b * x.mean(1, keepdims=True)
    through_zero = x @ errors.T / (x**2).sum(1, keepdims=True)
    a, b = np.where(a < 0, 0, a), np.where(a < 0, through_zero, b)
    squares = sum((errors[:, place] - a - b * x[:, place, None]) ** 2 for place in range(len(labels)))  # (C, R)
    best = np.argmin(squares, axis=0)
    rows = np.arange(len(errors))
    return a[best, rows], b[best, rows], EXPONENTS[best]


def forecast(labels: np.ndarray, measured: np.ndarray, at: int) -> dict[str, Any] | None:
    """Return the law fitted to P runs, (P,) each, and its value for one more run with `at` labels, with the 95% interval.

    Returns None if the runs have fewer than three different numbers of labels. "low" and "high" are NaN for P = 3: the law
    fits any 3 runs. The interval is from a parametric bootstrap that also draws the variance, from s^2 * d / chi^2(d) with
    d = P - 3 (Gelman et al. 2013, Bayesian Data Analysis, 14.2), so few runs give a wide interval. Assumes independent runs,
    and that the law holds.
    """
    if len(np.unique(labels)) < PARAMETERS:
        return None
    n, error = labels.astype(float), 1 - measured
    a, b, c = (float(value[0]) for value in fit_power_law(n, error[None, :]))
    fitted = a + b * n**-c
    law = {"labels": at, "value": 1 - (a + b * float(at) ** -c), "low": np.nan, "high": np.nan, "a": a, "b": b, "c": c}
    freedom = len(n) - PARAMETERS
    if freedom:
        random = np.random.default_rng(0)
        variance = ((error - fitted) ** 2).sum() / random.chisquare(freedom, (RESAMPLES, 1))
        noise = np.sqrt(variance) * random.standard_normal((RESAMPLES, len(n) + 1))  # last column: noise of the forecast run
        a_, b_, c_ = fit_power_law(n, np.clip(fitted + noise[:, :-1], 0, 2))
        drawn = np.clip(a_ + b_ * float(at) ** -c_ + noise[:, -1], 0, 2)
        law["low"], law["high"] = (float(end) for end in np.quantile(1 - drawn, (0.025, 0.975)))
    return law | {"runs": len(n), "resamples": RESAMPLES if freedom else 0}
