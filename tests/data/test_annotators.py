"""Several annotators: their labels in every form, the mean, what is refused, and how far they agree."""

from __future__ import annotations

import dataclasses
import html
import itertools
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bertFineTuningWithConnectionData as driver
import tools.check
from connection.data.agreement import find_agreement, krippendorff_alpha
from connection.data.correlation import spearman_interval
from connection.data.label_column import read_columns
from connection.data.pair_file import PairFile
from connection.data.pair_store import load_pairs
from connection.data.prepare import prepare
from connection.system.errors import InputError
from ConnectionBert import load_tokenizer
from tests.conftest import MANY, run_inside
from tools import evaluate

NAN = math.nan
COLUMNS = "sentence1=one,sentence2=two,label=A,B,C"
ROWS = [("1", "2", "3"), ("5", "", "4"), ("0", "0", ""), ("", "", "2"), ("3", "3", "3"), ("4", "5", "5")]
MEANS = [2, 4.5, 0, 2, 3, 14 / 3]
# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, part D: four observers, twelve units, . is missing.
OBSERVERS = """1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 ."""
PUBLISHED = np.array([[NAN if cell == "." else float(cell) for cell in line.split()] for line in OBSERVERS.split("\n")]).T


def table(rows=ROWS, head=("one", "two", "A", "B", "C")):
    return [list(head), *([f"a dog sees door {n}", f"the cat sees {n}", *cells] for n, cells in enumerate(rows))]


def write(path, rows=ROWS, **options):
    lines = (";" if options.get("semicolons") else ",").join
    path.write_text("\n".join(map(lines, table(rows, **{key: options[key] for key in options if key == "head"}))) + "\n")
    return path


def read(path, columns=COLUMNS, low=-math.inf, high=math.inf, **options):
    """The labels, the lines and the annotators' labels of a file, and its bad rows as (line, finding, what)."""
    chunks = list(PairFile.open(path, columns, **options).chunks(2, low, high))
    joined = [np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("label", "line", "ratings")]
    return *joined, [row[:3] for chunk in chunks for row in chunk.bad]


@pytest.fixture
def tokenizer(tiny_folder):
    return load_tokenizer(tiny_folder)


@pytest.fixture
def check(tiny_folder, tmp_path, capsys):
    def run(*words):
        status = tools.check.main([*map(str, words), "--model-dir", str(tiny_folder), "--cache-dir", str(tmp_path / "cache")])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


# --- the statistics -------------------------------------------------------------------------------------------------------


def textbook_alpha(ratings):
    """Alpha with the interval metric, from the matrix of coincidences as the textbook has it."""
    values = sorted({value for value in ratings.ravel() if not math.isnan(value)})
    together = np.zeros((len(values), len(values)))  # o_ck
    for row in ratings:
        present = [value for value in row if not math.isnan(value)]
        for one, other in itertools.permutations(range(len(present)), 2):
            together[values.index(present[one]), values.index(present[other])] += 1 / (len(present) - 1)
    totals = together.sum(axis=0)  # n_c
    apart = np.subtract.outer(values, values) ** 2
    return 1 - (totals.sum() - 1) * (together * apart).sum() / (np.outer(totals, totals) * apart).sum()


def ratings_of(n, k, seed, missing=0.3):
    random = np.random.default_rng(seed)
    ratings = np.clip(np.round(random.normal(2.5, 1.5, (n, 1)) + random.normal(0, 1, (n, k))), 0, 5)
    ratings[random.random((n, k)) < missing] = NAN
    ratings[np.isnan(ratings).all(axis=1), 0] = 1
    return ratings


def labelled(ratings):
    return [["" if value != value else f"{value:g}" for value in row] for row in ratings]


def test_alpha_is_the_published_one():
    assert round(krippendorff_alpha(PUBLISHED), 3) == 0.849
    assert krippendorff_alpha(PUBLISHED) == pytest.approx(textbook_alpha(PUBLISHED), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_alpha_is_that_of_the_coincidences(seed):
    ratings = ratings_of(40, 2 + seed, seed)
    assert krippendorff_alpha(ratings) == pytest.approx(textbook_alpha(ratings), abs=1e-12)
    assert krippendorff_alpha(3 * ratings - 7) == pytest.approx(krippendorff_alpha(ratings), abs=1e-12)


def test_alpha_of_full_agreement_is_1_and_of_one_single_label_undefined():
    assert krippendorff_alpha(np.array([[1, 1], [3, 3], [2, NAN]])) == 1
    assert math.isnan(krippendorff_alpha(np.array([[1, 1], [1, 1]])))
    assert math.isnan(krippendorff_alpha(np.array([[1, NAN], [NAN, 2]])))


def test_spearman_is_that_of_scipy_where_both_have_labels():
    ratings = ratings_of(60, 4, 1)
    found = find_agreement(ratings, "ABCD")
    several = ratings[(~np.isnan(ratings)).sum(axis=1) > 1]

    def both(one, other):
        kept = ~np.isnan(one) & ~np.isnan(other)
        return stats.spearmanr(one[kept], other[kept]).statistic

    pairs = [both(several[:, one], several[:, other]) for one, other in itertools.combinations(range(4), 2)]
    others = [both(several[:, one], pd.DataFrame(np.delete(several, one, axis=1)).mean(axis=1).to_numpy()) for one in range(4)]
    assert found.pairwise_spearman == pytest.approx(np.mean(pairs))
    assert found.with_others == pytest.approx(others)
    assert found.spearman == pytest.approx(np.mean(others))
    assert (found.pairs, found.labels) == (len(several), (~np.isnan(several)).sum(axis=0).tolist())


def test_the_interval_holds_the_correlation_of_95_of_100_samples():
    random, inside = np.random.default_rng(0), 0
    for _ in range(300):
        x = random.normal(size=80)
        y = 0.7 * x + math.sqrt(1 - 0.49) * random.normal(size=80)
        low, high = spearman_interval(stats.spearmanr(x, y).statistic, 80)
        inside += low < 6 / math.pi * math.asin(0.35) < high  # of normal numbers that correlate at 0.7
    assert 0.92 < inside / 300 < 0.98


def test_one_more_annotator_agrees_with_the_mean_as_the_report_says():
    ratings = ratings_of(4000, 4, 2, missing=0)
    found = find_agreement(ratings[:, :3], "ABC")  # the fourth is the one more
    assert found.spearman == pytest.approx(stats.spearmanr(ratings[:, 3], ratings[:, :3].mean(axis=1)).statistic, abs=0.05)


# --- the file -------------------------------------------------------------------------------------------------------------


def test_the_label_is_the_mean_of_those_that_are_there(tmp_path):
    labels, lines, ratings, bad = read(write(tmp_path / "p.csv"))
    assert labels.tolist() == pytest.approx(MEANS)
    assert (lines.tolist(), bad) == ([2, 3, 4, 5, 6, 7], [])
    np.testing.assert_array_equal(ratings, [[float(cell or "nan") for cell in row] for row in ROWS])


@pytest.mark.parametrize("columns", ["sentence1=1,sentence2=2,label=3,4,5", "label=A, B ,5,sentence1=one,sentence2=two"])
def test_annotators_are_names_or_numbers(tmp_path, columns):
    assert read(write(tmp_path / "p.csv"), columns)[0].tolist() == pytest.approx(MEANS)


def test_annotators_in_a_file_without_header(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("".join(f"a dog {n},a cat {n},{n},{5 - n}\n" for n in range(6)))
    assert read(path, "sentence1=1,sentence2=2,label=3,4")[0].tolist() == [2.5] * 6


def rows_as_numbers():
    frame = pd.DataFrame(table()[1:], columns=table()[0])
    for name in "ABC":
        frame[name] = pd.to_numeric(frame[name])
    return frame


@pytest.mark.parametrize("ending", ["xlsx", "jsonl", "json", "parquet", "tsv"])
def test_every_form_has_the_same_rows(tmp_path, ending):
    path, frame = tmp_path / f"p.{ending}", rows_as_numbers()
    if ending == "xlsx":
        frame.to_excel(path, index=False)
    elif ending == "parquet":
        frame.to_parquet(path)
    elif ending == "tsv":
        frame.to_csv(path, sep="\t", index=False)
    elif ending == "json":
        frame.to_json(path, orient="records")
    else:  # who has no label is not named
        rows = [{name: value for name, value in row.items() if value == value} for row in frame.to_dict("records")]
        path.write_text("\n".join(map(json.dumps, rows)))
    labels, _, ratings, bad = read(path)
    assert (labels.tolist(), bad) == (pytest.approx(MEANS), [])
    np.testing.assert_array_equal(ratings, [[float(cell or "nan") for cell in row] for row in ROWS])


def test_nan_in_parquet_is_no_label(tmp_path):
    import pyarrow
    import pyarrow.parquet

    columns = dict(zip(("one", "two"), zip(*(row[:2] for row in table()[1:]), strict=True), strict=True))
    of_each = {name: [float(row[place] or "nan") for row in ROWS] for place, name in enumerate("ABC")}
    pyarrow.parquet.write_table(pyarrow.table({**columns, **of_each}), tmp_path / "p.parquet")
    assert read(tmp_path / "p.parquet")[0].tolist() == pytest.approx(MEANS)


@pytest.mark.parametrize("word", ["", "  ", "NA", "n/a", "?", "-", "nan", "null"])
def test_what_says_that_there_is_no_label(tmp_path, word):
    labels, _, _, bad = read(write(tmp_path / "p.csv", [("1", word, "3"), ("5", "4", word), (word, word, word)]))
    assert labels.tolist() == [2, 4.5]
    assert bad == [(4, "bad-label", "columns A, B, C: no label, all are blank")]


def test_a_bad_cell_makes_the_row_bad(tmp_path):
    rows = [("1", "perhaps", "3"), ("7", "2", "-1"), ("1", "2", "1e39"), ("1", "2", "3"), ("inf", "", "")]
    labels, lines, _, bad = read(write(tmp_path / "p.csv", rows), low=0, high=5)
    assert (labels.tolist(), lines.tolist()) == ([2], [5])
    assert [row[2] for row in bad] == [
        "column B: 'perhaps' is not a number",
        "column A: 7 is outside the label scale 0 to 5; column C: -1 is outside the label scale 0 to 5",
        "column C: '1e39' is too large for a label: 1e+30 at most",
        "column A: 'inf' is not a finite number",
    ]
    assert {row[1] for row in bad} == {"bad-label"}


def test_every_wrong_word_of_a_row_is_in_the_help(check, tmp_path):
    words = [("perhaps", "rather", "3")] + [("1", "2", "3")] * 3
    status, said = check(write(tmp_path / "p.csv", words), "--columns", COLUMNS)
    assert status == 2
    assert "column A: 'perhaps' is not a number; column B: 'rather' is not a number" in said
    assert '"perhaps=0,rather=1"' in said


@pytest.mark.parametrize(
    ("rows", "label_map", "means"),
    [
        ([("yes", "no", "yes"), ("no", "no", ""), ("yes", "yes", "yes")], "", [2 / 3, 0, 1]),
        ([("1", "no", "yes"), ("0", "no", ""), ("1", "yes", "yes")], "", [2 / 3, 0, 1]),
        ([("ja", "no", "yes"), ("nein", "no", ""), ("ja", "yes", "yes")], "", [2 / 3, 0, 1]),  # each in their language
        ([("20%", "0.4", ""), ("80%", "1", "0.6"), ("100%", "0", "")], "", [0.3, 0.8, 0.5]),
        ([("fair", "3", ""), ("good", "fair", "2")], "fair=2,good=4", [2.5, 8 / 3]),
    ],
)
def test_words_and_notations(tmp_path, rows, label_map, means):
    labels, _, _, bad = read(write(tmp_path / "p.csv", rows), label_map=label_map)
    assert (labels.tolist(), bad) == (pytest.approx(means), [])


def test_decimal_commas_of_one_annotator_beside_points_of_another(tmp_path):
    path = write(tmp_path / "p.csv", [("2,5", "3.5", ""), ("1,25", "1.75", "3.0"), ("4", "4.0", "")], semicolons=True)
    labels, _, _, bad = read(path)
    assert (labels.tolist(), bad) == (pytest.approx([3, 2, 4]), [])


def test_a_word_means_what_it_means_among_the_words_of_all():
    likert = ["strongly disagree", "disagree", "neutral", "agree", "strongly agree"]
    careful, bold = read_columns([(careful, bold) for bold in likert for careful in ("disagree", "agree")], 2, {}, 0, 1, False)
    assert [careful.number(word) for word in ("disagree", "agree")] == [0.25, 0.75]
    assert careful.number("agree") == bold.number("agree")


def test_the_mean_of_equal_labels_is_this_label(tmp_path):
    rows = [("0.7",) * 3, ("0.1",) * 3, ("0.3", "0.3", "0.3")]
    assert read(write(tmp_path / "p.csv", rows), low=0.1, high=0.7)[0].tolist() == [0.7, 0.1, 0.3]


def test_a_repeated_header_is_left_out(tmp_path):
    path = write(tmp_path / "p.csv")
    path.write_text(path.read_text() + "one,two,A,B,C\n")
    labels, _, _, bad = read(path)
    assert (len(labels), bad) == (6, [])


# --- columns --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("sentence1=one,sentence2=two,label=A,B,X", "label=X: no column of that name or number"),
        ("sentence1=one,sentence2=two,label=A,B,A", "the same column is declared twice"),
        ("sentence1=one,sentence2=two,label=A,", "'' is not one of"),
        ("sentence1=one,X,sentence2=two,label=A", "'X' is not one of"),
        ("A,sentence1=one,sentence2=two,label=B", "'A' is not one of"),
        ("sentence1=one,sentence2=two,label=A,B,negative=C", "a pair has a label, and a triplet has negatives"),
    ],
)
def test_wrong_columns_are_refused(tmp_path, columns, said):
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        PairFile.open(write(tmp_path / "p.csv"), columns)


@pytest.mark.parametrize(
    ("head", "flag"),
    [
        ("sentence1,sentence2,annotator1,annotator2,annotator3", ""),
        ("premise,hypothesis,rater_a,rater_b,rater_c", ""),
        ("sentence1,sentence2,Rater 1,Rater 2,Rater 3", "sentence1=1,sentence2=2,label=3,4,5"),
        ("sentence1,sentence2,label_1,label_2,label_3", ""),
        ("this,that,score_rater1,score_rater2,score_rater3", ""),
        ("sentence1,sentence2,raters.a,raters.b,raters.c", ""),
        ("요구사항,테스트,평가자1,평가자2,평가자3", ""),
    ],
)
def test_columns_of_annotators_are_asked_about(tmp_path, head, flag):
    one, two, labels = head.split(",", 2)
    flag = flag or f"sentence1={one},sentence2={two},label={labels}"
    rows = [(str(n % 6), str((n + 1) % 6), "" if n % 3 else str(n % 5)) for n in range(20)]
    path = write(tmp_path / "p.csv", rows, head=head.split(","))
    with pytest.raises(InputError, match="labels of several annotators") as refused:
        PairFile.open(path)
    given = str(refused.value).partition("--columns ")[2]
    assert given == flag
    assert len(read(path, given)[0]) == 20  # ready to copy


def test_one_label_column_beside_annotators_is_the_label(tmp_path):
    path = write(tmp_path / "p.csv", head=("sentence1", "sentence2", "score", "annotator1", "annotator2"))
    assert PairFile.open(path).columns.names == ("sentence1", "sentence2", "score")


def test_label_columns_of_other_names_are_proposed(tmp_path):
    path = write(
        tmp_path / "p.csv", [("1", "2", "3"), ("5", "4", "4")] * 6, head=("sentence1", "sentence2", "Ann", "Ben", "Cem")
    )
    with pytest.raises(InputError, match="label=3,4,5 if each is an annotator's"):
        PairFile.open(path)


# --- the store, the scale, the audit --------------------------------------------------------------------------------------


def test_the_store_keeps_the_agreement(tmp_path, tokenizer, monkeypatch):
    ratings = ratings_of(30, 3, 4)
    file = PairFile.open(write(tmp_path / "p.csv", labelled(ratings)), COLUMNS)
    monkeypatch.setattr("connection.data.pair_store.SMALL_FILE", 0)  # cached
    stores = [load_pairs(file, tokenizer, 32, -math.inf, math.inf, tmp_path / "cache", False) for _ in range(2)]
    for store in stores:
        assert store.agreement == find_agreement(ratings, ["A", "B", "C"])
        assert store.written == sorted({value for value in ratings.ravel().tolist() if value == value})
    assert stores[0].folder == stores[1].folder


def test_the_scale_is_that_of_the_annotators_and_not_of_the_means(tmp_path, tokenizer):
    path = write(tmp_path / "p.csv", [("1", "2", "1"), ("5", "4", "5"), ("3", "2", "3"), ("2", "3", "")])
    scale = prepare({"train": str(path)}, tokenizer, 32, COLUMNS, (None, None), tmp_path, False).scale
    assert (scale.low, scale.high, scale.kind) == (1, 5, "graded")  # the means are 4/3 to 14/3
    path = write(tmp_path / "q.csv", [("1", "0", "1"), ("0", "0", "1"), ("1", "1", "1")])
    scale = prepare({"train": str(path)}, tokenizer, 32, COLUMNS, (None, None), tmp_path, False).scale
    assert (scale.low, scale.high, scale.kind) == (0, 1, "graded")  # of 0 and 1, the means are neither


def test_what_is_said_of_the_agreement(check, tmp_path):
    ratings = ratings_of(60, 3, 5, missing=0.1)
    status, said = check(write(tmp_path / "p.csv", labelled(ratings)), "--columns", COLUMNS)
    found = find_agreement(ratings, ["A", "B", "C"])
    assert status == 0
    assert f"agreement of 3 annotators (A, B, C) on {found.pairs} pairs that two or more labelled" in said
    assert f"Krippendorff's alpha {found.alpha:.2f}" in said
    assert f"at a Spearman x 100 of {100 * found.spearman:.0f} (95% interval" in said
    status, said = check(tmp_path / "p.csv", "--columns", COLUMNS, "--json")
    assert json.loads(said[said.index("{") :])["agreement"]["train"]["alpha"] == pytest.approx(found.alpha)


def test_an_annotator_with_the_scale_the_other_way_round_is_an_error(check, tmp_path):
    ratings = ratings_of(60, 3, 6, missing=0)
    ratings[:, 1] = 5 - ratings[:, 1]
    status, said = check(write(tmp_path / "p.csv", labelled(ratings)), "--columns", COLUMNS)
    assert status == 2
    assert "reversed-annotator" in said
    assert "B: these labels fall where the others' rise" in said
    assert check(tmp_path / "p.csv", "--columns", COLUMNS, "--allow", "reversed-annotator")[0] == 0


def test_low_agreement_is_a_warning(check, tmp_path):
    random = np.random.default_rng(0)
    status, said = check(write(tmp_path / "p.csv", labelled(random.integers(0, 6, (60, 3)))), "--columns", COLUMNS)
    assert status == 0
    assert "low-agreement" in said
    assert "are all labels on one scale?" not in said  # nothing is alike


@pytest.mark.parametrize("turned_to", [lambda label: 20 * label, lambda label: label / 5, lambda label: label + 10])
def test_an_annotator_on_another_scale_is_said(check, tmp_path, turned_to):
    ratings = ratings_of(60, 3, 6, missing=0)
    ratings[:, 1] = turned_to(ratings[:, 1])
    status, said = check(write(tmp_path / "p.csv", labelled(ratings)), "--columns", COLUMNS)
    assert status == 0
    assert "low-agreement" in said
    assert "in the same order with other numbers: are all labels on one scale?" in said


def test_an_annotator_without_a_label_is_said(check, tmp_path):
    ratings = ratings_of(60, 3, 6, missing=0)
    assert "labelled none of these" not in check(write(tmp_path / "p.csv", labelled(ratings)), "--columns", COLUMNS)[1]
    ratings[:, 2] = np.nan
    status, said = check(write(tmp_path / "q.csv", labelled(ratings)), "--columns", COLUMNS)
    assert status == 0
    assert "; C labelled none of these\n" in said


def test_a_code_for_a_missing_label_of_one_annotator_is_found(check, tmp_path):
    ratings = ratings_of(60, 3, 7, missing=0)
    ratings[5, 2] = 99
    status, said = check(write(tmp_path / "p.csv", labelled(ratings)), "--columns", COLUMNS)
    assert status == 2
    assert "99 of an annotator (leave such cells blank) may stand for a missing label" in said


def test_few_pairs_say_nothing_of_what_can_be_reached(check, tmp_path):
    status, said = check(write(tmp_path / "p.csv"), "--columns", COLUMNS)
    assert status == 0
    assert "what a model can reach is not known" in said


# --- a run ----------------------------------------------------------------------------------------------------------------


def test_a_run_trains_on_the_mean_and_reports_the_agreement(tiny_folder, tmp_path):
    random = np.random.default_rng(8)
    rows = [
        (one, two, *(str(min(5, max(0, label + int(off)))) for off in random.integers(-1, 2, 3))) for one, two, label in MANY
    ]
    lines = [",".join(row) for row in [("one", "two", "A", "B", "C"), *rows]]
    (tmp_path / "train.csv").write_text("\n".join(lines[:61]))
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *lines[61:]]))
    words = ["--train-file", tmp_path / "train.csv", "--test-file", tmp_path / "test.csv", "--columns", COLUMNS]
    words += ["--model-dir", tiny_folder, "--max-length", 32, "--label-min", 0, "--label-max", 5, "--epochs", 1]
    shown = run_inside(driver.main, *words, "--output-dir", tmp_path / "run", "--cache-dir", tmp_path / "cache")
    assert shown.returncode == 0, shown.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    of_test = np.array([row[2:] for row in rows[60:]], float)
    found = find_agreement(of_test, ["A", "B", "C"])
    assert results["agreement"]["test"] == dataclasses.asdict(found)
    assert set(results["agreement"]) == {"train", "test"}
    labels = pd.read_csv(tmp_path / "run" / "predictions.csv").sort_values("line")["label"]
    assert labels.tolist() == pytest.approx(of_test.mean(axis=1), abs=1e-5)
    told = html.unescape((tmp_path / "run" / "report.html").read_text())
    assert f"Krippendorff's alpha {found.alpha:.2f}" in told
    shown = run_inside(
        evaluate.main, tmp_path / "run", tmp_path / "test.csv", "--columns", COLUMNS, "--json", tmp_path / "e.json"
    )
    assert shown.returncode == 0, shown.stderr
    assert f"Krippendorff's alpha {found.alpha:.2f}" in shown.stdout
    assert json.loads((tmp_path / "e.json").read_text())["files"][0]["agreement"]["pairs"] == 40


def test_annotators_and_weights_are_read_side_by_side(tmp_path):
    file = tmp_path / "both.csv"
    file.write_text("sentence1,sentence2,A,B,often\nA dog,A cat,1,3,2\nA man,A boy,,4,0.5\nOne,Two,x,5,-1\nUp,Down,2,2,-1\n")
    opened = PairFile.open(file, "sentence1=1,sentence2=2,weight=often,label=A,B", weighted=True)
    (chunk,) = opened.chunks()
    assert chunk.label.tolist() == [2, 4]
    assert chunk.weight is not None
    assert chunk.weight.tolist() == [2, 0.5]
    assert [(row.line, row.finding) for row in chunk.bad] == [(4, "bad-label"), (5, "bad-weight")]
