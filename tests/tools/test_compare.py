"""tools.compare: two runs side by side, on the same test pairs or not at all."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from tests.conftest import MANY, binary, run_inside, train_and_test
from tools import compare


@pytest.fixture
def two_runs(tiny_folder, tmp_path):
    for name, rate in (("a", "1e-5"), ("b", "3e-3")):
        train_and_test(tiny_folder, tmp_path / name, MANY, "--learning-rate", rate)
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


def test_binary_labels_are_compared_by_average_precision(tiny_folder, tmp_path):
    for name, rate in (("a", "1e-5"), ("b", "3e-3")):
        train_and_test(tiny_folder, tmp_path / name, binary(MANY), "--learning-rate", rate)
    tests = [pd.read_csv(tmp_path / name / "predictions.csv").query("split == 'test'") for name in ("a", "b")]
    a, b = (100 * average_precision_score(table["label"], table["final"]) for table in tests)
    shown = run_inside(compare.main, tmp_path / "a", tmp_path / "b").stdout
    assert f"B {'gained' if b > a else 'lost'} {abs(b - a):.1f} +- " in shown
    assert "points of average precision x 100 against A" in shown


def test_on_a_reversed_scale_a_gain_is_a_gain(two_runs, tiny_folder, tmp_path):
    reverse = [(one, two, 5 - score) for one, two, score in MANY]
    runs = tmp_path / "c", tmp_path / "d"
    for run, rate in zip(runs, ("1e-5", "3e-3"), strict=True):
        train_and_test(tiny_folder, run, reverse, "--learning-rate", rate, "--label-min", 5, "--label-max", 0)
    said = [run_inside(compare.main, *pair).stdout.splitlines()[-1] for pair in (two_runs, runs)]
    assert said[0] == said[1]


def test_the_order_of_the_test_pairs_does_not_count(two_runs):
    before = run_inside(compare.main, *two_runs).stdout
    table = pd.read_csv(two_runs[1] / "predictions.csv", dtype={"pair": str})
    table.iloc[::-1].to_csv(two_runs[1] / "predictions.csv", index=False)
    assert run_inside(compare.main, *two_runs).stdout == before


def test_runs_on_other_test_pairs_are_refused(tiny_folder, two_runs, tmp_path):
    train_and_test(tiny_folder, tmp_path / "c", MANY[:99])
    relabelled = [(one, two, 5 - score) for one, two, score in MANY]
    train_and_test(tiny_folder, tmp_path / "d", relabelled)
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
    header = content.splitlines()[0]
    for cells in ("9" * 20 + ",ab,1,1,1", "1,ab,inf,1,1", "1,ab,1,1e300,1", "1,,1,1,1"):
        (run / "predictions.csv").write_text(f"{header}\ntest,{cells}\n")
        refused("predictions.csv is damaged")
    (run / "predictions.csv").write_text(content)
    for deep in ("[" * 100_000, '{"final": {"test": {"spearman": 1' + "0" * 400 + '}}, "base": {}}', '{"final": NaN}'):
        for name in ("settings.json", "results.json"):
            before = (run / name).read_text()
            (run / name).write_text(deep)
            refused(f"{name} can't be read")
            (run / name).write_text(before)
    results = json.loads((run / "results.json").read_text())
    wrong: dict[str, Any]
    for wrong in ({"final": 3}, {"final": {}}, {"final": {"test": []}}, {"final": {"test": {"spearman": "x"}}}):
        (run / "results.json").write_text(json.dumps(results | wrong))
        refused("results.json")
    assert run_inside(compare.main, tmp_path / "nowhere", run).returncode == 2
