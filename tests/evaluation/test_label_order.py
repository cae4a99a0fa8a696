"""Labels that fall with likeness are not trained on without a word."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy import stats

import bertFineTuningWithConnectionData as driver
from connection.evaluation.label_order import correlation
from tests.conftest import WORDS, run_inside, training_words, write_pairs


def pairs_of(count, label_of):
    """Pairs that share more or fewer words; label_of: a share of words in [0, 1] -> the label."""
    draw, words = random.Random(0), WORDS.split()
    rows = []
    for _ in range(count):
        one, keep = draw.sample(words, 8), draw.random()
        two = [word if draw.random() < keep else draw.choice(words) for word in one]
        rows.append((" ".join(one), " ".join(two), label_of(len({*one} & {*two}) / 8)))
    return rows


FALLING = {
    "distance": lambda shared: round(1 - shared, 2),
    "school mark": lambda shared: 6 - round(5 * shared),
    "NLI code": lambda shared: 0 if shared > 0.7 else 1 if shared > 0.4 else 2,
    "binary": lambda shared: int(shared < 0.5),
}


@pytest.mark.parametrize("kind", FALLING)
def test_labels_that_fall_with_likeness_stop_the_run_with_the_flags_that_declare_them(tiny_folder, tmp_path, kind):
    file = write_pairs(tmp_path / "pairs.csv", pairs_of(80, FALLING[kind]))
    shown = run_inside(driver.main, *training_words(tiny_folder, file, tmp_path / "run"))
    assert shown.returncode == 2
    assert "the wrong way round" in shown.stderr
    low, high = {"distance": ("0", "1"), "school mark": ("1", "5"), "NLI code": ("0", "2"), "binary": ("0", "1")}[kind]
    assert f"--label-min {high} --label-max {low}" in shown.stderr
    assert not (tmp_path / "run").exists()
    flags = ["--label-min", low, "--label-max", high]
    assert run_inside(driver.main, *training_words(tiny_folder, file, tmp_path / "run", *flags)).returncode == 0


@pytest.mark.parametrize("kind", ["rising", "at random"])
def test_labels_that_rise_or_have_no_order_are_trained_on(tiny_folder, tmp_path, kind):
    draw = random.Random(1)
    rows = pairs_of(80, lambda shared: round(5 * shared) if kind == "rising" else draw.randint(0, 5))
    file = write_pairs(tmp_path / "pairs.csv", rows)
    shown = run_inside(driver.main, *training_words(tiny_folder, file, tmp_path / "run"))
    assert shown.returncode == 0
    assert ("the labels 0 to 5 may be codes of classes" in shown.stdout) == (kind == "at random")
    flags = ["--label-min", 0, "--label-max", 5, "--overwrite"]
    assert (
        "codes of classes" not in run_inside(driver.main, *training_words(tiny_folder, file, tmp_path / "run", *flags)).stdout
    )


def test_a_dozen_pairs_are_enough_to_show_that_labels_are_the_wrong_way_round(tiny_folder, tmp_path):
    file = write_pairs(tmp_path / "pairs.csv", pairs_of(12, FALLING["NLI code"]))
    shown = run_inside(driver.main, *training_words(tiny_folder, file, tmp_path / "run"))
    assert shown.returncode == 2, shown.stdout
    assert "--label-min 2 --label-max 0" in shown.stderr


def test_the_interval_is_that_of_bonett_and_wright():
    generator = np.random.default_rng(0)
    x = generator.normal(size=50)
    y = x + generator.normal(size=50)
    value, low, high = correlation(x, y)
    assert value == pytest.approx(stats.spearmanr(x, y).statistic)
    inside = 0
    for _ in range(300):  # the correlation of the population is 0
        _, low, high = correlation(generator.normal(size=50), generator.normal(size=50))
        inside += low < 0 < high
    assert inside >= 270
