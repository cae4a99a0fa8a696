"""errors.csv and the slices of a run: computed again from predictions.csv and the file's own rows."""

from __future__ import annotations

import csv
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.isotonic import IsotonicRegression

import bertFineTuningWithConnectionData as driver
from connection.data.labels import LabelScale
from connection.data.pair_file import PairFile
from connection.data.pair_store import load_pairs
from connection.data.prepare import prepare
from connection.evaluation.evaluate import LabelledPairs
from connection.evaluation.slices import count_negated, find_slices, worst_slices
from connection.reports.errors_csv import write_worst_first
from connection.reports.tables import errors_sentence, render, slices_table
from connection.system.csv_output import as_cell, from_cell
from ConnectionBert import load_tokenizer
from tests.conftest import MANY, PAIRS, binary, run_inside, train_and_test, write_pairs

CALIBRATED = ("label", "predicted", "cosine", "residual")


def errors_of(run):
    return pd.read_csv(run / "errors.csv", keep_default_na=False)


def store_of(folder, path, max_length=32):
    return load_pairs(PairFile.open(path), load_tokenizer(folder), max_length, -math.inf, math.inf, path.parent, False)


def slices_of(folder, path, cosine, residual=None, max_length=32, scale=None):
    store = store_of(folder, path, max_length)
    scale = scale or LabelScale(0, 5, "graded", "")
    chunk = next(PairFile.open(path).chunks())
    negated = count_negated(chunk.sentence1, chunk.sentence2)
    return find_slices(LabelledPairs.of(store, scale), store, slice(None), negated, np.asarray(cosine, float), residual)


# --- errors.csv --------------------------------------------------------------------------------------------------------


def test_errors_csv_holds_every_pair_with_its_text_worst_first(tiny_folder, tmp_path):
    shown, results, predictions = train_and_test(tiny_folder, tmp_path / "run", MANY)
    table = errors_of(tmp_path / "run")
    assert list(table.columns) == ["rank", "split", "line", "sentence1", "sentence2", *CALIBRATED]
    assert table["rank"].tolist() == list(range(1, 61))
    assert (table["residual"].abs().diff()[1:] <= 0).all()
    both = predictions.merge(table, on=["split", "line"], suffixes=("", "_errors"))
    assert len(both) == len(predictions) == 60
    assert both["cosine"].tolist() == pytest.approx(both["final"].tolist(), abs=1e-6)
    assert both["label"].tolist() == both["label_errors"].tolist()
    dev, test = (both[both["split"] == part] for part in ("dev", "test"))
    peer = IsotonicRegression(out_of_bounds="clip").fit(dev["final"], dev["label"])
    for part in (dev, test):
        assert part["predicted"].tolist() == pytest.approx(peer.predict(part["final"]), abs=1e-5)
        assert (part["label"] - part["predicted"]).tolist() == pytest.approx(part["residual"].tolist(), abs=2e-6)
    for start, part in ((40, dev), (70, test)):
        wanted = [list(map(str, MANY[start + line - 2][:2])) for line in part["line"]]
        assert part[["sentence1", "sentence2"]].to_numpy().tolist() == wanted
    # the slices' figures, by scipy and by hand
    slices = results["slices"]
    assert set(slices) == {"dev", "test"}
    [overall] = slices["test"]["all"]
    assert overall["pairs"] == 30
    assert overall["mean_absolute_error"] == pytest.approx(results["final"]["test"]["graded"]["mean_absolute_error"])
    assert overall["spearman"] == pytest.approx(results["final"]["test"]["spearman"])
    for row in slices["test"]["label"]:
        of_label = test[test["label"] == float(row["slice"])]
        assert row["pairs"] == len(of_label)
        assert row["spearman"] is None  # one label alone
        assert row["mean_absolute_error"] == pytest.approx(of_label["residual"].abs().mean(), abs=1e-5)
    assert all(row["mean_absolute_error"] is None for rows in slices["dev"].values() for row in rows)  # fitted there
    assert errors_sentence(slices) in shown
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Groups of the test pairs" in report
    assert f'<th scope="row">label {slices["test"]["label"][0]["slice"]}</th>' in report


def test_binary_labels_are_called_at_the_threshold(tiny_folder, tmp_path):
    _, results, _ = train_and_test(tiny_folder, tmp_path / "run", binary(MANY))
    table = errors_of(tmp_path / "run")
    threshold = results["final"]["test"]["binary"]["threshold"]
    assert table["called"].tolist() == (table["cosine"] >= threshold).astype(float).tolist()
    assert table["predicted"].between(0, 1).all()
    test = table[table["split"] == "test"]
    accuracy = (test["called"] == test["label"]).mean()
    assert accuracy == pytest.approx(results["final"]["test"]["binary"]["accuracy"])


@pytest.mark.parametrize("part", ["dev", "test"])
def test_a_run_with_one_held_out_file(tiny_folder, pair_file, tmp_path, part):
    """Without dev pairs nothing is fitted: the predicted label is the cosine's place on the scale, the training's own."""
    other = write_pairs(tmp_path / "other.csv", PAIRS[:5])
    shown = run_inside(driver.main, "--model-dir", tiny_folder, "--train-file", pair_file, f"--{part}-file", other, "--epochs",
                       1, "--max-length", 32, "--label-max", 5, "--allow", "leaked-pair",
                       "--output-dir", tmp_path / "run")  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    table = errors_of(tmp_path / "run")
    assert set(table["split"]) == {part}
    assert sorted(table["line"]) == [2, 3, 4, 5, 6]
    if part == "test":
        assert table["predicted"].tolist() == pytest.approx((5 * table["cosine"].clip(0, 1)).tolist(), abs=1e-5)
    slices = json.loads((tmp_path / "run" / "results.json").read_text())["slices"]
    assert (slices[part]["all"][0]["mean_absolute_error"] is None) == (part == "dev")
    assert f"errors.csv has every {part} pair" in shown.stdout


def test_without_held_out_pairs_there_is_no_errors_csv_and_an_old_one_goes(tiny_folder, pair_file, tmp_path):
    train_and_test(tiny_folder, tmp_path / "run", MANY)
    assert (tmp_path / "run" / "errors.csv").is_file()
    shown = run_inside(driver.main, "--model-dir", tiny_folder, "--train-file", pair_file, "--epochs", 1, "--max-length", 32,
                       "--dev-fraction", 0, "--test-fraction", 0, "--output-dir", tmp_path / "run", "--overwrite")  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert not (tmp_path / "run" / "errors.csv").exists()
    assert "slices" not in json.loads((tmp_path / "run" / "results.json").read_text())


def test_pairs_split_off_from_the_training_file_have_their_own_text(tiny_folder, tmp_path):
    rows = [(f"the man {word} {n}", f"a dog {word} {n}", n % 5) for n in range(40) for word in ("sees", "rides", "reads")]
    file = write_pairs(tmp_path / "mine.csv", rows)
    shown = run_inside(driver.main, "--model-dir", tiny_folder, "--train-file", file, "--epochs", 1, "--max-length", 32,
                       "--output-dir", tmp_path / "run")  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    table = errors_of(tmp_path / "run")
    assert table["split"].value_counts().to_dict() == {"dev": 12, "test": 12}
    assert [tuple(row) for row in table[["sentence1", "sentence2", "label"]].to_numpy().tolist()] == [
        rows[line - 2] for line in table["line"]
    ]


def test_a_file_that_changed_during_training_costs_the_text_alone(tiny_folder, tmp_path):
    file = write_pairs(tmp_path / "pairs.csv")
    prepared = prepare({"train": str(file)}, load_tokenizer(tiny_folder), 32, "", (0, 5), tmp_path, False)
    store = prepared.stores["train"]
    table = pd.DataFrame({"split": "test", "line": store.line, "residual": np.arange(8.0)})
    assert write_worst_first(tmp_path / "a.csv", table, lambda _: prepared.reopen(store))[1] == ""
    write_pairs(file, PAIRS[::-1])
    negated, problem = write_worst_first(tmp_path / "a.csv", table, lambda _: prepared.reopen(store))
    assert negated is None
    assert "changed" in problem
    again = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)
    assert (again["sentence1"] == "").all()
    assert again["residual"].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]
    file.unlink()
    assert str(file) in write_worst_first(tmp_path / "a.csv", table, lambda _: prepared.reopen(store))[1]


def test_odd_text_comes_back_as_it_was_in_blocks_of_any_size(tmp_path, monkeypatch):
    odd = ['he said "no", twice', "two\nlines", "=1+1", "-5 degrees", "+49 is Germany", "@home", "'=quoted", "'plain'", "a\rb",
           "\ttabbed", "Zürich, 東京", "\uff1dwide", "a;=1+1"]  # fmt: skip
    rows = [(text, f"other {text}", n % 6) for n, text in enumerate(odd)]
    file = tmp_path / "odd.jsonl"
    file.write_text("".join(json.dumps({"sentence1": a, "sentence2": b, "score": s}) + "\n" for a, b, s in rows))
    residual = np.array([0, 3, -4, np.nan, 1, 1, -1, 0.5, 2, 7, -7, 6, 5])
    table = pd.DataFrame({"split": "test", "line": np.arange(1, len(odd) + 1), "residual": residual})
    written = []
    for size in (200_000, 4, 1):
        monkeypatch.setattr("connection.reports.errors_csv.PAIRS_AT_ONCE", size)
        write_worst_first(tmp_path / "errors.csv", table, lambda _: PairFile.open(file))
        written.append((tmp_path / "errors.csv").read_bytes())
    assert written[0] == written[1] == written[2]
    with open(tmp_path / "errors.csv", encoding="utf-8-sig", newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [int(row["line"]) for row in found] == [10, 11, 12, 13, 3, 2, 9, 5, 6, 7, 8, 1, 4]  # equal ones in file order
    for row in found:
        cells = row["sentence1"], row["sentence2"]
        assert not any(cell.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")) for cell in cells)
        assert tuple(map(from_cell, cells)) == rows[int(row["line"]) - 1][:2]
    assert as_cell("plain - with a dash") == "plain - with a dash"
    assert as_cell("'=x") == "''=x"


# --- slices ------------------------------------------------------------------------------------------------------------


def test_slices_by_hand(tiny_folder, tmp_path):
    rows = [
        ("a dog", "a dog", 5),
        ("a dog is big", "a dog is not big", 4.5),
        ("no man sees the red horse", "a man never sees the red horse in the park", 2.2),
        ("a cat", "the night", 0),
        ("the city is big", "the city is small", 1.3),
        ("a b c d e f g h i j k l m n o p", "red", 0.7),
        ("a b", "a b", 3.9),
    ]
    file = write_pairs(tmp_path / "pairs.csv", rows)
    cosine = np.array([0.9, 0.8, 0.1, 0.2, 0.7, 0.3, 0.6])
    residual = np.array([0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7])
    slices = slices_of(tiny_folder, file, cosine, residual, max_length=12)

    def members(kind):
        return {row["slice"]: (row["pairs"], row["mean_absolute_error"]) for row in slices[kind]}

    assert members("label") == {
        "0 to below 1": (2, pytest.approx(0.5)),
        "1 to below 2": (1, pytest.approx(0.5)),
        "2 to below 3": (1, pytest.approx(0.3)),
        "3 to below 4": (1, pytest.approx(0.7)),
        "4 to 5": (2, pytest.approx(0.15)),
    }
    assert members("negation") == {
        "in neither": (5, pytest.approx(0.46)), "in one": (1, pytest.approx(0.2)), "in both": (1, pytest.approx(0.3)),
    }  # fmt: skip
    assert members("truncation") == {"both whole": (6, pytest.approx(2.2 / 6)), "one or both cut": (1, pytest.approx(0.6))}
    # words of the longer sentence: 2 5 10 2 4 16 2
    assert members("length") == {
        "up to 2 words": (3, pytest.approx(0.4)),
        "3 to 5 words": (2, pytest.approx(0.35)),
        "more than 5 words": (2, pytest.approx(0.45)),
    }
    # Jaccard 1, 4/5, 5/9 (a man no never sees the red horse in park), 0, 3/5, 0, 1
    assert members("overlap") == {
        "below 25% in common": (2, pytest.approx(0.5)),
        "50 to 75% in common": (2, pytest.approx(0.4)),
        "75% and more in common": (3, pytest.approx(1 / 3)),
    }
    low = next(row for row in slices["label"] if row["slice"] == "0 to below 1")
    assert low["spearman"] == pytest.approx(stats.spearmanr([0.2, 0.3], [0, 0.7]).statistic)
    assert math.isnan(slices["label"][1]["spearman"])  # one pair


def test_constant_labels_one_pair_and_broken_cosines_leave_figures_undefined(tiny_folder, tmp_path):
    same = write_pairs(tmp_path / "same.csv", [(a, b, 2) for a, b, _ in PAIRS])
    slices = slices_of(tiny_folder, same, np.linspace(0, 1, 8))
    assert "label" not in slices  # all pairs are in one
    assert all(math.isnan(row["spearman"]) for rows in slices.values() for row in rows)
    assert all(math.isnan(row["mean_absolute_error"]) for rows in slices.values() for row in rows)
    one = write_pairs(tmp_path / "one.csv", PAIRS[:1])
    assert set(slices_of(tiny_folder, one, [0.5], np.array([1.0]))) == {"all"}
    broken = slices_of(tiny_folder, write_pairs(tmp_path / "all.csv"), [np.nan] * 8, np.full(8, np.nan))
    assert math.isnan(broken["all"][0]["spearman"])
    assert worst_slices(broken) == []
    assert "n/a" in render(slices_table(broken))
    assert errors_sentence({"test": broken}) == "errors.csv has every test pair, the worst first."


def test_the_worst_slices_are_of_different_kinds_and_not_of_a_few_pairs():
    def row(name, pairs, error):
        return {"slice": name, "pairs": pairs, "spearman": math.nan, "mean_absolute_error": error}

    slices = {
        "all": [row("all pairs", 40, 0.5)],
        "label": [row("0", 15, 0.9), row("1", 15, 0.8), row("2", 10, 0.1)],
        "length": [row("up to 9 words", 20, 0.6), row("more than 9 words", 20, 0.4)],
        "negation": [row("in one", 9, 2.0), row("in neither", 31, 0.55)],
    }
    assert [(kind, found["slice"]) for kind, found in worst_slices(slices)] == [("label", "0"), ("length", "up to 9 words")]
    said = errors_sentence({"dev": slices, "test": slices})
    assert re.search(r"label 0 \(0.90 on 15 pairs\), longer sentence up to 9 words \(0.60 on 20 pairs\)\.", said)
    assert said.endswith("errors.csv has every dev and test pair, the worst first.")


def test_negations():
    negated = ["it is NOT so", "don't", "don\u2019t go", "nobody came", "he cannot", "none"]
    plain = ["a knot", "notable", "ant", "want", "north"]
    assert count_negated(negated, [""] * len(negated)).tolist() == [1] * len(negated)
    assert count_negated(plain, plain).tolist() == [0] * len(plain)
    assert count_negated(["no"], ["not"]).tolist() == [2]
