"""Pair files: what is read, which columns are taken, how labels are understood, and what is refused with file and line."""

from __future__ import annotations

import json
import math

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connection.data.labels import find_scale, is_label, parse_label
from connection.data.pair_file import PairFile
from connection.data.text_hashes import count_words
from connection.system.errors import InputError
from tests.conftest import PAIRS, write_pairs

FLAG = "--columns sentence1=NAME,sentence2=NAME,label=NAME"


def read(path, columns="", **options):
    """(the rows, {line: what} of the bad ones, the line numbers of the good ones)"""
    chunks = list(PairFile.open(path, columns).chunks(**options))
    rows = [row for chunk in chunks for row in zip(chunk.sentence1, chunk.sentence2, chunk.label.tolist(), strict=True)]
    bad = {row.line: row.what for chunk in chunks for row in chunk.bad}
    return rows, bad, [int(line) for chunk in chunks for line in chunk.line]


def refused(path, columns="") -> str:
    with pytest.raises(InputError) as raised:
        read(path, columns)
    message = str(raised.value)
    assert str(path) in message
    return message


def write(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    return path


# --- the public files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pairs", "least", "most", "form"),
    [
        ("korsts/sts-train.tsv", 5749, 0, 5, "tab-separated"),
        ("korsts/sts-dev.tsv", 1500, 0, 5, "tab-separated"),
        ("korsts/sts-test.tsv", 1379, 0, 5, "tab-separated"),
        ("stsb/stsb-en-train.csv", 5749, 0, 5, "comma-separated"),
        ("stsb/stsb-en-dev.csv", 1500, 0, 5, "comma-separated"),
        ("stsb/stsb-en-test.csv", 1379, 0, 5, "comma-separated"),
        ("sick/SICK_train.txt", 4500, 1, 5, "tab-separated"),
    ],
)
def test_public_file_needs_nothing_but_its_path(public_data, name, pairs, least, most, form):
    file = PairFile.open(public_data / name)
    rows, bad, lines = read(public_data / name)
    header = file.columns.header
    assert (len(rows), bad) == (pairs, {})
    assert lines == list(range(1 + header, pairs + 1 + header))
    assert (min(row[2] for row in rows), max(row[2] for row in rows)) == (least, most)
    assert form in str(file)
    assert find_scale(None, None, sorted({row[2] for row in rows})).low == least


def test_unescaped_quotes_of_korsts_arrive(public_data):
    path = public_data / "korsts" / "sts-train.tsv"
    raw = [line.rstrip("\n").split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    assert [row[:2] for row in read(path)[0]] == [(cells[5], cells[6]) for cells in raw]


# --- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("header", [("sentence1", "sentence2", "score"), None])
@pytest.mark.parametrize("ending", ["csv", "tsv", "txt"])
def test_table_comes_back(tmp_path, delimiter, header, ending):
    rows, bad, lines = read(write_pairs(tmp_path / f"p.{ending}", PAIRS, header, delimiter))
    assert (rows, bad) == (PAIRS, {})
    assert lines == [n + (2 if header else 1) for n in range(len(PAIRS))]


def test_chunks_are_the_same_rows(tmp_path):
    path = write_pairs(tmp_path / "p.csv", [*PAIRS, ("a", "", 1)])
    assert read(path, size=3) == read(path)
    assert [len(chunk) for chunk in PairFile.open(path).chunks(3)] == [3, 3, 2]


def test_other_column_order_other_columns_and_lines_of_quoted_rows(tmp_path):
    path = write(tmp_path / "p.csv", '\ufeffid,Score,sentence2,sentence1\n1,2.5,"two\nlines, ""quoted""",one\n\n,,,\n2,0,b,a\n')
    assert read(path) == ([("one", 'two\nlines, "quoted"', 2.5), ("a", "b", 0)], {}, [2, 6])


@pytest.mark.parametrize(
    ("content", "sentences"),
    [
        ('"he said\tshe said" no\t3\n"x\tw\t1\n', ['"he said', '"x']),  # not closed, or closed too early
        ('5" pipe\tb\t3\n"x"\tw\t1\n', ['5" pipe', '"x"']),  # one cell shows that quotes do not enclose
        ('"a\tb"\t3\nx\tw\t1\nz\tw\t1\n', ['"a', "x", "z"]),  # enclosing would make the rows uneven
        ('"a ""b"" c"\t"d\te"\t3\nx\tw\t1\n', ['a "b" c', "x"]),
        ('"he said\tw\t3\nx"\tw\t1\nz\tw\t1\n', ['"he said', 'x"', "z"]),  # each line is a row by itself
        ('"two\nlines"\tb\t3\nx\tw\t1\n', ["two\nlines", "x"]),
    ],
)
def test_quotes_in_tab_separated_files(tmp_path, content, sentences):
    rows, bad, _ = read(write(tmp_path / "p.tsv", content))
    assert ([row[0] for row in rows], bad) == (sentences, {})


def test_every_bad_row_is_named_and_the_others_stay(tmp_path):
    cells: list[tuple[object, ...]] = [
        ("a", "b", 1),
        (" ", "b", 2),
        ("a", "", 3),
        ("a", "b", "high"),
        ("a", "b", "nan"),
        ("a", "b", "-inf"),
        ("a", "b", ""),
    ]
    cells += [("a", "b"), ("a", "b", 2, 9), ("", "\u3000", 1), ("a", "b", "4_5"), ("a", "b", "85%"), ("a", "b", 5.5)]
    text = "\n".join(",".join(map(str, row)) for row in [("sentence1", "sentence2", "score"), *cells])
    rows, bad, lines = read(write(tmp_path / "p.csv", text), low=0, high=5)
    assert (rows, lines) == ([("a", "b", 1)], [2])
    assert bad == {
        3: "column sentence1: blank",
        4: "column sentence2: blank",
        5: "column score: 'high' is not a number",
        6: "column score: 'nan' is not a finite number",
        7: "column score: '-inf' is not a finite number",
        8: "column score: blank",
        9: "2 columns, the first row has 3",
        10: "4 columns, the first row has 3: a label with a decimal comma and no quotes? "
        "Write a point, or save with semicolons",
        11: "column sentence1: blank; column sentence2: blank",
        12: "column score: '4_5' is not a number",
        13: "column score: '85%' is not a number",
        14: "column score: 5.5 is outside the label scale 0 to 5",
    }


def test_blank_label_in_the_first_row_is_no_header(tmp_path):
    rows, bad, _ = read(write(tmp_path / "p.csv", "a one,b one,\nc two,d two,3\n"))
    assert (rows, bad) == ([("c two", "d two", 3)], {1: "column 3: blank"})


def test_a_few_bad_labels_do_not_hide_the_label_column(tmp_path):
    path = write_pairs(tmp_path / "p.csv", [*PAIRS, ("a", "b", "high")], None)
    assert read(path)[1] == {9: "column 3: 'high' is not a number"}


def test_what_was_understood_is_said_with_three_rows(tmp_path):
    lines = str(PairFile.open(write_pairs(tmp_path / "p.csv"))).splitlines()
    assert lines[0] == (
        f"{tmp_path / 'p.csv'}: comma-separated text, UTF-8; sentence1 = 'sentence1', sentence2 = 'sentence2', "
        "label = 'score' (by name)"
    )
    assert lines[1] == "    line 2: 'the man plays guitar' | 'a man plays a guitar' | '4.5'"
    assert len(lines) == 4


def test_missing_file_and_folder(tmp_path):
    assert "No such file" in refused(tmp_path / "absent.csv")
    assert "folder" in refused(tmp_path)


# --- columns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "sentence1,sentence2,score", "Sentence 1,Sentence 2,Similarity Score", "sentence_A,sentence_B,relatedness_score",
        "text_a,text_b,label", "text1,text2,similarity", "question1,question2,is_duplicate", "premise,hypothesis,label",
        "#1 String,#2 String,Quality", "query,passage,relevance", "qtext,atext,label", "sent-1,sent-2,gold_label",
        " sentence1 , sentence2 , score ",
    ],
)  # fmt: skip
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_columns_by_the_names_people_use(tmp_path, header, order):
    names = header.split(",")
    cells = [("one", "two", "3"), ("five", "six", "1")]
    lines = ["\t".join(["id", *(row[place] for place in order), "genre"]) for row in (names, *cells)]
    path = write(tmp_path / "p.tsv", "\n".join(lines))
    assert read(path)[0] == [("one", "two", 3), ("five", "six", 1)]
    assert PairFile.open(path).columns.names == tuple(name.strip() for name in names)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2, 1)])
def test_columns_by_content_without_a_header(tmp_path, order):
    path = write_pairs(tmp_path / "p.csv", [[*(row[place] for place in order), ""] for row in PAIRS], None)
    assert read(path)[0] == PAIRS
    assert "by content, there is no header" in str(PairFile.open(path))


@pytest.mark.parametrize(
    "declared",
    [
        "sentence1=left,sentence2=right,label=points",
        "label = 4, sentence2 =3,sentence1= 2",
        "score=points,sentence1=Left,sentence2=3",
    ],
)
def test_columns_as_declared(tmp_path, declared):
    path = write(tmp_path / "p.csv", "id,left,right,points,score\n1,a,b,2,9\n2,c,d,3,9\n")
    assert read(path, declared) == ([("a", "b", 2), ("c", "d", 3)], {}, [2, 3])


def test_a_declared_number_is_a_place_even_where_a_first_row_holds_that_number(tmp_path):
    path = write(tmp_path / "p.csv", "a,b,1\nc,d,3\n")
    assert read(path, "sentence1=1,sentence2=2,label=3")[0] == [("a", "b", 1), ("c", "d", 3)]


def test_declared_columns_of_json(tmp_path):
    path = write(tmp_path / "p.jsonl", json.dumps({"x": "a", "y": "b", "3": 1, "z": 2}) + "\n")
    assert read(path, "sentence1=x,sentence2=y,label=3")[0] == [("a", "b", 1)]
    assert read(path, "sentence1=1,sentence2=2,label=4")[0] == [("a", "b", 2)]


def test_pandas_header_of_numbers_is_no_row(tmp_path):
    path = write(tmp_path / "p.csv", "0,1,2\na,b,3\nc,d,1\n")
    assert "a header without known names" in refused(path)
    assert read(path, "sentence1=1,sentence2=2,label=3")[0] == [("a", "b", 3), ("c", "d", 1)]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (
            "sentence1,sentence2,text_a,text_b,score\na,b,c,d,1\n",
            ["two sentences: sentence1 and sentence2 or text_a and text_b"],
        ),
        ("query,passage,document,label\na,b,c,1\n", ["query and passage or query and document"]),
        ("sentence1,sentence2,score,label\na,b,1,2\n", ["column of the label: score or label"]),
        ("sentence1,sentence2,score,Score\na,b,1,2\n", ["2 columns are named score"]),
        ("sentence1,Sentence 1,sentence2,score\na,b,c,2\n", ["2 columns are named sentence1"]),
        ("sentence1,sentence2,other\na,b,1\n", ["column of the label: none"]),
        ("sentence1,other,score\na,b,1\n", ["two sentences: none"]),
        ("left,right,points\na,b,1\nc,d,2\n", ["no number in column 3 of the first row"]),
        ("1,a,b,3\n2,c,d,4\n", ["text: column 2 or 3", "numbers: 1 or 4"]),
        ("a,b\nc,d\n", ["numbers: none"]),
        ("a,b,c\nd,e,f\n", ["text: column 1 or 2 or 3", "numbers: none"]),
        ("1,2,3\n4,5,6\n", ["text: column none", "numbers: 1 or 2 or 3"]),
        ("a,b,c,1\nd,e,f,2\n", ["text: column 1 or 2 or 3; numbers: 4"]),
    ],
)
def test_ambiguity_is_refused_with_the_candidates_and_the_flag(tmp_path, content, parts):
    message = refused(write(tmp_path / "p.csv", content))
    for part in [*parts, "the first row: 1 ", FLAG]:
        assert part in message


@pytest.mark.parametrize(
    ("declared", "part"),
    [
        ("sentence1=a", "sentence2 is not declared"),
        ("sentence1=a,sentence2=b,label=none", "label=none: no column of that name or number"),
        ("sentence1=a,sentence2=b,label=6", "label=6: no column"),
        ("sentence1=a,sentence2=b,label=0", "label=0: no column"),
        ("sentence1=a,sentence2=b,label=²", "label=²: no column"),
        ("sentence1=a,sentence2=a,label=c", "declared twice"),
        ("sentence1=a,sentence2=1,label=c", "declared twice"),
        ("sentence1=a,sentence2=b,label=d", "2 columns are named d"),
        ("sentence1=a,sentence1=b,label=c", "'sentence1=b' is not one of"),
        ("left=a,sentence2=b,label=c", "'left=a' is not one of"),
        ("a,b,c", "'a' is not one of"),
    ],
)
def test_bad_declarations(tmp_path, declared, part):
    message = refused(write(tmp_path / "p.csv", "a,b,c,d,d\nx,y,1,2,3\n"), declared)
    assert part in message
    assert FLAG in message


# --- labels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "number"),
    [("1", 1), (" 2.50 ", 2.5), ("-1e-1", -0.1), ("YES", 1), ("no", 0), ("True", 1), ("false", 0), ("Duplicate", 1),
     ("not  duplicate", 0), ("not_duplicate", 0)],
)  # fmt: skip
def test_label_words_and_numbers(cell, number):
    assert parse_label(cell) == number
    assert is_label(cell)


@pytest.mark.parametrize("cell", ["", "high", "4_5", "85%", "1 2", "2,5", "--1", "0x1"])
def test_what_is_no_number(cell):
    assert math.isnan(parse_label(cell))


@pytest.mark.parametrize("words", [("yes", "no"), ("True", "False"), ("duplicate", "not duplicate")])
def test_words_label_a_column(tmp_path, words):
    path = write_pairs(tmp_path / "p.csv", [("a b", "c d", words[0]), ("e f", "g h", words[1])], None)
    assert [row[2] for row in read(path)[0]] == [1, 0]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["2,5", "3", "0,25"], [2.5, 3, 0.25]),
        (["2,5", "3,667", "-1,5"], [2.5, 3.667, -1.5]),
        (["0,333", "3,667"], [0.333, 3.667]),
        (["1"] * 300 + ["2,5"], [1] * 300 + [2.5]),  # seen after the sample
    ],
)
def test_decimal_commas_of_a_whole_column(tmp_path, labels, expected):
    path = write_pairs(tmp_path / "p.csv", [("a b", "c d", label) for label in labels], delimiter=";")
    rows, bad, _ = read(path)
    assert ([row[2] for row in rows], bad) == (expected, {})
    assert ("decimal comma" in str(PairFile.open(path))) == (len(labels) < 10)


@pytest.mark.parametrize("labels", [["2,5", "2.5", "1"], ["1,234", "2,500", "1"]])
def test_unclear_commas_are_bad_labels(tmp_path, labels):
    path = write_pairs(tmp_path / "p.csv", [("a b", "c d", label) for label in labels], delimiter=";")
    bad = read(path)[1]
    assert list(bad) == [line for line, label in enumerate(labels, 2) if "," in label]
    assert f"{labels[0]!r} is not clear: a decimal comma" in bad[2]


@pytest.mark.parametrize(
    ("seen", "low", "high", "kind"),
    [
        ([0, 1], 0, 1, "binary"), ([1], 0, 1, "positives"), ([0, 0.5, 1], 0, 1, "graded"), ([0.1, 0.9], 0, 1, "graded"),
        ([-1, 0, 1], -1, 1, "graded"), ([-0.2, 0.9], -1, 1, "graded"), ([0, 2.5, 5], 0, 5, "graded"),
        ([0, 3.8], 0, 5, "graded"), ([0, 1, 2, 3, 4], 0, 4, "graded"), ([1, 5], 1, 5, "graded"), ([1.2, 4.9], 1, 5, "graded"),
        ([0, 100], 0, 100, "graded"), ([3, 87], 0, 100, "graded"), ([0, 9.5], 0, 10, "graded"), ([-3, 7], -3, 7, "graded"),
        ([0, 250], 0, 250, "graded"), ([], 0, 1, "binary"),
    ],
)  # fmt: skip
def test_scale_from_the_training_file(seen, low, high, kind):
    scale = find_scale(None, None, np.array(seen, float))
    assert (scale.low, scale.high, scale.kind) == (low, high, kind)
    if len(seen) > 1:
        assert f"which has {min(seen):g} to {max(seen):g}" in str(scale)
        target = scale.target(np.array(seen, float))
        assert 0 <= target.min() <= target.max() <= 1


def test_declared_scale():
    assert str(find_scale(0, 5, [1, 3])) == "graded, 0 (no connection) to 5 (full connection), declared"
    assert (find_scale(0, None, [1, 3.5]).high, find_scale(None, 5, [0.5, 3]).low, find_scale(None, 7, [2, 3]).low) == (5, 0, 2)


@pytest.mark.parametrize(("low", "high", "seen"), [(1, 1, [1]), (None, None, [150.0]), (9, None, [3, 4])])
def test_scale_without_length_is_refused(low, high, seen):
    with pytest.raises(InputError, match="--label-min"):
        find_scale(low, high, seen)


# --- texts and labels that look like some ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["\u200b", "\ufeff\u200d ", "\xad", "\x01\x02", "\u3164", "\u2800\u2800", "\u0301", "\ufffd", "\u200b" * 5000]
)
def test_a_sentence_of_invisible_characters_is_blank(tmp_path, text):
    rows, bad, _ = read(write_pairs(tmp_path / "p.csv", [*PAIRS, (text, "a dog", 1), ("a dog", text, 1)]))
    assert rows == PAIRS
    assert bad == {
        10: "column sentence1: nothing but invisible characters",
        11: "column sentence2: nothing but invisible characters",
    }


def test_sentences_that_begin_with_a_sign_are_texts(tmp_path):
    pairs = [("...", "\u200ba", 1.0), ("(a)", "\U0001f600", 2.0), ("?", "\u4e2d", 3.0), ("\u0e01", "\u0915\u093f", 4.0)]
    assert read(write_pairs(tmp_path / "p.csv", pairs))[:2] == (pairs, {})


@pytest.mark.parametrize("label", ["1e39", "-1e300", "1e300", "2e30"])
def test_labels_that_32_bits_cannot_compute_with(tmp_path, label):
    rows, bad, _ = read(write_pairs(tmp_path / "p.csv", [*PAIRS, ("a", "b", label)]))
    assert rows == PAIRS
    assert bad == {10: f"column score: {label!r} is too large for a label: 1e+30 at most"}


def test_not_a_number_in_a_column_of_text_is_no_text(tmp_path):
    records = [dict(zip(("sentence1", "sentence2", "score"), pair, strict=True)) for pair in PAIRS]
    records += [records[0] | {"sentence1": math.nan}]
    jsonl = write(tmp_path / "p.jsonl", "\n".join(map(json.dumps, records)))
    parquet = tmp_path / "p.parquet"
    pq.write_table(pa.table({"sentence1": [math.nan] * 2, "sentence2": ["a", "b"], "score": [1.0, 2.0]}), parquet)
    assert read(jsonl)[1] == {9: "column sentence1: nan (no value)"}
    assert set(read(parquet)[1].values()) == {"column sentence1: nan (no value)"}


def test_chunks_are_bounded_by_their_text_too(tmp_path, monkeypatch):
    pairs = [("a" * 1000, f"b {number}", 1.0) for number in range(500)]
    path = write_pairs(tmp_path / "p.csv", pairs)
    monkeypatch.setattr("connection.data.pair_file.CHARACTERS_AT_ONCE", 100_000)
    chunks = list(PairFile.open(path).chunks())
    assert max(map(len, chunks)) <= 128
    assert [text for chunk in chunks for text in chunk.sentence2] == [pair[1] for pair in pairs]


def test_a_large_json_array_is_refused_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("connection.data.formats.json_files.LARGEST_DOCUMENT", 100)
    path = write(tmp_path / "p.json", json.dumps([{"sentence1": "a", "sentence2": "b", "score": 1}] * 10))
    assert "JSON Lines" in refused(path)


def test_words_among_numbers_that_are_no_0_and_1_are_bad_labels(tmp_path):
    mixed = [("a", "b", "1"), ("c", "d", "yes"), ("e", "f", "4"), ("g", "h", "No")]
    assert read(write_pairs(tmp_path / "p.csv", mixed))[1] == {
        3: "column score: 'yes' is not clear among numbers other than 0 and 1",
        5: "column score: 'No' is not clear among numbers other than 0 and 1",
    }
    assert read(write_pairs(tmp_path / "q.csv", [*mixed[:2], mixed[3]]))[1] == {}


def test_a_guessed_encoding_is_said_as_a_guess(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(
        "sentence1,sentence2,score\n고양이가 잔다,개가 달린다,1\n남자가 노래한다,여자가 춤춘다,2\n".encode("cp949")
    )
    assert "taken for cp949; check the sample rows; save as UTF-8 to be sure" in str(PairFile.open(path))
    assert "taken for" not in str(PairFile.open(write_pairs(tmp_path / "q.csv")))


def test_excel_sheets_that_are_not_read_are_said(tmp_path):
    book = openpyxl.Workbook()
    for row in (("sentence1", "sentence2", "score"), ("a", "b", 1)):
        book.active.append(row)
    book.active.sheet_state = "hidden"
    book.create_sheet("More")
    book.save(tmp_path / "p.xlsx")
    assert "sheet 'Sheet' (hidden), the first of 2; the others are not read: 'More'" in str(PairFile.open(tmp_path / "p.xlsx"))
    book = openpyxl.Workbook()
    book.create_sheet("Pairs").append(("sentence1", "sentence2", "score"))
    book.save(tmp_path / "q.xlsx")
    assert "'Pairs'" in refused(tmp_path / "q.xlsx")


@pytest.mark.parametrize(("text", "words"), [("a dog runs", 3), ("개가 달린다", 2), ("他在跑步。", 5), ("ネコ", 3), ("แมว", 4)])
def test_words_of_scripts_without_spaces(text, words):
    assert count_words(text) == words


def test_a_first_line_that_names_the_delimiter_is_skipped(tmp_path):
    path = write(tmp_path / "p.csv", "sep=;\r\nsentence1;sentence2;score\r\na, b;c;1\r\n;e;2\r\n")
    rows, bad, lines = read(path)
    assert (rows, lines, list(bad)) == ([("a, b", "c", 1.0)], [3], [4])


def test_sample_rows_mark_what_was_cut(tmp_path):
    shown = str(
        PairFile.open(write_pairs(tmp_path / "p.csv", [("a" * 100, "b", 0.25), ("c", "d", "1.0000000000000000000001")]))
    )
    assert f"'{'a' * 57}'... | 'b' | '0.25'" in shown
    assert "'1.000000000000000'..." in shown
