"""Labels as people write them: words of several languages, notations, decimal commas, scales."""

from __future__ import annotations

import math

import numpy as np
import pytest

from connection.data.label_words import help_with_words, parse_label_map
from connection.data.labels import LabelScale, find_scale
from connection.data.pair_file import PairFile
from connection.data.prepare import prepare
from connection.evaluation.calibration import fit_calibration
from connection.evaluation.evaluate import LabelledPairs, evaluate
from connection.model.calibration import Calibration
from connection.system.errors import InputError
from ConnectionBert import load_tokenizer
from tests.conftest import write_pairs
from tests.data.test_pair_file import read

COLUMN = ("sentence1", "sentence2", "label")


def labelled(path, labels, header=COLUMN, delimiter=","):
    rows = [(f"the door {number} stops", f"look at the lamp {number}", label) for number, label in enumerate(labels)]
    return write_pairs(path, rows, header, delimiter)


def numbers(path, label_map="", low=-math.inf, high=math.inf):
    """(the numbers of the good rows, what is wrong with the others)"""
    chunks = list(PairFile.open(path, label_map=label_map).chunks(low=low, high=high))
    return [label for chunk in chunks for label in chunk.label.tolist()], [row.what for chunk in chunks for row in chunk.bad]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["nein", "ja", "Ja"], [0, 1, 1]), (["FALSCH", "WAHR"], [0, 1]), (["non", "oui"], [0, 1]), (["FAUX", "VRAI"], [0, 1]),
        (["no", "sí", "si"], [0, 1, 1]), (["아니오", "예"], [0, 1]), (["いいえ", "はい"], [0, 1]), (["否", "是"], [0, 1]),
        (["F", "T"], [0, 1]), (["non-match", "match"], [0, 1]), (["irrelevant", "relevant"], [0, 1]), (["✗", "✓"], [0, 1]),
        (["negative", "positive"], [0, 1]), (["low", "high"], [0, 1]), (["low", "medium", "High"], [0, 0.5, 1]),
        (["낮음", "중간", "높음"], [0, 0.5, 1]), (["F", "C", "A"], [0, 0.6, 1]), (["0%", "20 %", "100%"], [0, 0.2, 1]),
        (["12,5 %", "50 %"], [0.125, 0.5]), (["0/5", "3/5", "5/5"], [0, 0.6, 1]), (["★☆☆", "★★☆", "★★★"], [1, 2, 3]),
        (["★", "★★★★★"], [1, 5]), (["\u22121.0", "\u22120.5", "1.0"], [-1, -0.5, 1]),
        (["\uff10\uff0e\uff15", "\uff12"], [0.5, 2]),
        (["\u0660", "\u0665"], [0, 5]), (["0 - none", "5 - full"], [0, 5]), (["1", "no", "0", "yes"], [1, 0, 0, 1]),
        (["ja", "nein", "1", "0"], [1, 0, 1, 0]), (["0 pt", "4 pt"], [0, 4]), (["3 €", "4 €"], [3, 4]),
        (["2점", "5점"], [2, 5]),
        (["Level 1", "Level 4"], [1, 4]), (["LABEL_0", "LABEL_1"], [0, 1]), (["'0", "'4"], [0, 4]), (['="0"', '="4"'], [0, 4]),
        (["tensor(0.)", "tensor(2.5)"], [0, 2.5]), (["np.float64(0.0)", "np.float64(0.4)"], [0, 0.4]), (["[1]", "[2]"], [1, 2]),
        (["0 (none)", "5 (full)"], [0, 5]), (["(0) none", "(5) full"], [0, 5]), (["1. none", "2. full"], [1, 2]),
        (["none (0)", "full (5)"], [0, 5]), (["none - 0", "full - 5"], [0, 5]), (["3 of 5", "5 out of 5"], [0.6, 1]),
        (["①", "⑤"], [1, 5]), (["20٪", "100٪"], [0.2, 1]),
        (["Strongly disagree", "Agree", "Strongly agree"], [0, 0.75, 1]), (["disagree", "agree"], [0, 1]),
        (["very low", "low", "very high"], [0, 0.25, 1]), (["not related", "partially related", "related"], [0, 0.5, 1]),
        (["Not at all similar", "Extremely similar"], [0, 1]),
        (["☐", "☑"], [0, 1]), (["no link", "link"], [0, 1]),
        (["none", "weak", "strong"], [0, 0.5, 1]), (["none", "weak", "medium", "strong"], [0, 1 / 3, 2 / 3, 1]),
        (["no", "partially", "yes"], [0, 0.5, 1]), (["nein", "teilweise", "ja"], [0, 0.5, 1]),
        (["X", "△", "O"], [0, 0.5, 1]), (["×", "○"], [0, 1]),  # noqa: RUF001
        (["관련 없음", "관련 있음"], [0, 1]), (["不相关", "相关"], [0, 1]), (["不一致", "一致"], [0, 1]),
        (["нет", "да"], [0, 1]),
        (["nem", "igen"], [0, 1]), (["όχι", "ναι"], [0, 1]), (["لا", "نعم"], [0, 1]), (["không", "có"], [0, 1]),  # noqa: RUF001
    ],
)  # fmt: skip
def test_words_and_notations_of_a_whole_column(tmp_path, cells, expected):
    assert numbers(labelled(tmp_path / "p.csv", cells)) == (pytest.approx(expected), [])


@pytest.mark.parametrize(
    "cells",
    [
        ["ja", "nein", "vielleicht"], ["nein", "oui"], ["low", "medium", "high", "very high"], ["low", "1"],
        ["ja", "nein", "4"],
        ["A", "B", "C"], ["entailment", "neutral", "contradiction"], ["0 pt", "1 €"], ["x"], ["REQ 1-2", "REQ 1-3"],
        ["3/5", "7/10"], ["6/5"], ["2024/05/01", "2024/05/02"],
        ["★★☆", "★★"], ["120%"], ["0 - none", "0 - weak"],
    ],
)  # fmt: skip
def test_words_that_are_not_certain_are_bad_labels(tmp_path, cells):
    read_numbers, bad = numbers(labelled(tmp_path / "p.csv", cells))
    assert len(bad) == sum(not cell.isdecimal() for cell in cells)
    assert read_numbers == [float(cell) for cell in cells if cell.isdecimal()]
    assert f"{cells[0]!r} is not" in bad[0]


def test_percentages_among_numbers_are_not_clear(tmp_path):
    assert numbers(labelled(tmp_path / "p.csv", ["0.2", "20%"])) == ([0.2], ["column label: '20%' is not a number"])


@pytest.mark.parametrize(("cells", "top", "expected"), [(["20%", "100%"], 100, [20, 100]), (["3/5", "5/5"], 5, [3, 5])])
def test_notations_on_the_scale_of_other_files(tmp_path, cells, top, expected):
    path = labelled(tmp_path / "p.csv", cells)
    assert numbers(path, low=0, high=top) == (expected, [])
    assert numbers(path, low=0, high=1)[0] == [number / top for number in expected]
    assert numbers(path, low=0, high=7)[0] == []


def test_a_column_of_percentages_without_a_header(tmp_path):
    assert numbers(labelled(tmp_path / "p.csv", ["0 %", "50 %", "100 %"], None)) == ([0, 0.5, 1], [])


def test_a_map_declares_words(tmp_path):
    path = labelled(tmp_path / "p.csv", ["Weak", "fair", "strong", "odd", "very-strong"])
    found, bad = numbers(path, "weak=0,fair=0.5,strong=1,very strong=2")
    assert (found, bad) == ([0, 0.5, 1, 2], ["column label: 'odd' is not a number"])
    assert numbers(labelled(tmp_path / "q.csv", ["yes", "no", "maybe"]), "maybe=0.5") == ([1, 0, 0.5], [])


@pytest.mark.parametrize("text", ["low", "low=", "=1", "low=a", "low=nan", "low=1_0", "low=0,low=1", "low=0,,high=1"])
def test_bad_maps_are_refused(text):
    with pytest.raises(InputError):
        parse_label_map(text)


def test_the_way_out_of_unknown_words_works_when_typed(tmp_path):
    path = labelled(tmp_path / "p.csv", ["entailment", "neutral", "contradiction"])
    said = help_with_words(numbers(path)[1])
    assert "ja/nein" in said
    assert said.endswith('--label-map "contradiction=0,neutral=0.5,entailment=1"')
    assert numbers(path, said.rpartition(" ")[2].strip('"')) == ([1, 0.5, 0], [])
    assert help_with_words(["column label: 7 is outside the label scale 0 to 5"]) == ""


def test_what_words_stand_for_is_said(tmp_path):
    assert "labels are words: nein = 0, ja = 1" in str(PairFile.open(labelled(tmp_path / "p.csv", ["ja", "nein"])))


# --- points and commas -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1.000", "1.333", "4.667"], [1, 1.333, 4.667]), (["0.000", "1.000", "5"], [0, 1, 5]), (["1.500", "3"], [1.5, 3]),
        (["1,000", "1,333", "5,000"], [1, 1.333, 5]), (["99.500", "0.5", "100"], [99.5, 0.5, 100]),
    ],
)  # fmt: skip
def test_three_decimals_are_read_where_nothing_else_can_be_meant(tmp_path, cells, expected):
    assert numbers(labelled(tmp_path / "p.csv", cells, delimiter=";")) == (expected, [])


@pytest.mark.parametrize("cells", [["1.000", "200", "800"], ["1,000", "200", "800"], ["1,000", "2,000"], ["1,333", "2"]])
def test_a_possible_thousand_is_refused(tmp_path, cells):
    found, bad = numbers(labelled(tmp_path / "p.csv", cells, delimiter=";"))
    assert found == [float(cell) for cell in cells if cell.isdecimal()]
    assert all("is not clear" in what for what in bad)
    assert len(bad) == len(cells) - len(found)


@pytest.mark.parametrize("cell", ["1.000", "1,000", "1 000", "1\u00a0000", "1'000", "1.000,5", "2024-05-01"])
def test_rows_whose_number_is_not_clear_are_not_skipped(tmp_path, tiny_folder, cell):
    """All labels of that size are written so: without them, the scale would end at 800."""
    file = labelled(tmp_path / "p.csv", [cell, "200", "800"] * 4, delimiter=";")
    prepared = prepare({"train": str(file)}, load_tokenizer(tiny_folder), 32, "", (None, None), tmp_path / "cache", False)
    for bad_rows in ("stop", "skip"):
        with pytest.raises(InputError, match="--allow unclear-label") as raised:
            prepared.require(bad_rows, "")
        assert "--on-bad-rows skip" not in str(raised.value)
    assert "--on-bad-rows skip" not in str(prepared)
    prepared.require("stop", "unclear-label")


def test_a_dash_typed_for_a_minus_is_one(tmp_path):
    cells = ["\u20131", "\u20130.5", "0", "1"]
    assert numbers(labelled(tmp_path / "p.csv", cells)) == ([-1, -0.5, 0, 1], [])


@pytest.mark.parametrize(("cells", "high"), [(["1,333", "2"], 5), (["33.333", "100"], 100)])
def test_a_declared_scale_makes_it_certain(tmp_path, cells, high):
    expected = [float(cell.replace(",", ".")) for cell in cells]
    assert numbers(labelled(tmp_path / "p.csv", cells, delimiter=";"), low=0, high=high) == (expected, [])


# --- scales ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "low", "high", "kind", "other"),
    [
        ([1, 2, 7], 1, 7, "graded", "--label-max 10"), ([0, 1, 3], 0, 3, "graded", "--label-max 5"),
        ([0, 1, 2], 0, 2, "graded", "--label-max 5"), ([1, 2, 3], 1, 3, "graded", "--label-max 5"),
        ([1, 4, 6], 1, 6, "graded", "--label-min 6 --label-max 1"), ([1, 2], 1, 2, "binary", "--label-max 5"),
        ([0, 1.5, 3], 0, 5, "graded", ""), ([0, 5], 0, 5, "graded", ""),
    ],
)  # fmt: skip
def test_scales_in_use_are_recognised_with_their_alternative(seen, low, high, kind, other):
    scale = find_scale(None, None, seen)
    assert (scale.low, scale.high, scale.kind) == (low, high, kind)
    assert other in scale.how
    assert bool(other) == ("if it is" in scale.how)


def test_a_file_without_a_good_label_is_not_said_to_have_some():
    assert "no label that can be used" in find_scale(None, None, []).how


def test_the_scale_is_that_of_the_label_map_unless_declared_or_exceeded():
    words = [0, 0.5, 1, 1.5]
    assert str(find_scale(None, None, [0, 0.5], mapped=words)) == (
        "graded, 0 (no connection) to 1.5 (full connection), taken from --label-map"
    )
    assert find_scale(None, None, [0, 1], mapped=[0, 1]).kind == "binary"
    assert find_scale(None, 2, [0, 1], mapped=words).high == 2
    assert find_scale(None, None, [0, 1, 4.5], mapped=[0, 1]).high == 5  # numbers beside the words
    assert find_scale(None, None, [0, 3, 5], mapped=[0, 0]).high == 5  # two words for nothing say nothing of the top


def test_a_reversed_scale(tmp_path):
    scale = find_scale(1, 0, [0, 0.25, 1])
    assert scale.target(np.array([0, 0.25, 1])).tolist() == [1, 0.75, 0]
    assert find_scale(1, 0, [0, 1]).kind == "binary"
    path = labelled(tmp_path / "p.csv", ["0", "1", "1.5", "-0.5"])
    found, bad = numbers(path, low=1, high=0)
    assert (found, len(bad)) == ([0, 1], 2)
    with pytest.raises(InputError, match="--label-min"):
        find_scale(9, None, [3, 4])


def pairs(labels, scale):
    count = len(labels)
    return LabelledPairs(
        np.array(labels, np.float32), np.arange(count), np.arange(count), np.zeros(count, np.uint64), np.arange(count), scale
    )


def test_figures_on_a_reversed_scale_are_those_of_the_mirrored_labels():
    cosine = np.array([0.9, 0.7, 0.4, 0.3, 0.1])
    far, near = [0.1, 0.0, 0.6, 0.5, 1.0], [0.9, 1.0, 0.4, 0.5, 0.0]
    scales = LabelScale(1, 0, "graded", ""), LabelScale(0, 1, "graded", "")
    one, two = (evaluate(pairs(labels, scale), cosine) for labels, scale in zip((far, near), scales, strict=True))
    assert one["spearman"] == pytest.approx(two["spearman"])
    assert one["spearman"] > 0.5
    fitted = [fit_calibration(cosine, np.array(labels), scale) for labels, scale in zip((far, near), scales, strict=True)]
    assert fitted[0].label(cosine) == pytest.approx(1 - fitted[1].label(cosine))
    assert fitted[0].knots
    saved = {"calibration": {"cosine": list(fitted[0].knots[0]), "label": list(fitted[0].knots[1])}}
    assert Calibration.from_json(saved | {"label_min": 1, "label_max": 0}) == fitted[0]
    with pytest.raises(ValueError, match="ascend"):
        Calibration.from_json(saved | {"label_min": 0, "label_max": 1})
    assert Calibration().predicted_label(np.array([0.0, 1.0]), 1, 0).tolist() == [1, 0]


def test_binary_labels_on_a_reversed_scale():
    cosine = np.array([0.9, 0.8, 0.3, 0.1])
    found = evaluate(pairs([0, 0, 1, 1], LabelScale(1, 0, "binary", "")), cosine)
    assert (found["binary"]["average_precision"], found["binary"]["roc_auc"]) == (1, 1)


def test_bad_rows_do_not_hide_the_scale(tmp_path):
    assert read(labelled(tmp_path / "p.csv", ["?", "1", "5"]))[1] == {2: "column label: '?' is not a number"}
