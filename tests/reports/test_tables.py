"""The sentences of a report say what its figures say."""

from __future__ import annotations

import math

from connection.reports.tables import gain_sentence


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
