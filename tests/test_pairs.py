"""Pair files: what is read, and what is refused with file, line, column and value."""

from __future__ import annotations

import numpy as np
import pytest

from connection.errors import InputError
from connection.pairs import read_pairs
from tests.conftest import PAIRS, write_pairs


def refused(path, low=0, high=5) -> str:
    with pytest.raises(InputError) as raised:
        read_pairs(path, low, high)
    message = str(raised.value)
    assert str(path) in message
    return message


@pytest.mark.parametrize("delimiter", [",", "\t"])
@pytest.mark.parametrize("header", [("sentence1", "sentence2", "score"), None])
def test_table_comes_back(tmp_path, delimiter, header):
    table = read_pairs(write_pairs(tmp_path / f"p.{'csv' if delimiter == ',' else 'tsv'}", PAIRS, header, delimiter), 0, 5)
    assert list(zip(table.sentence1, table.sentence2, table.score.tolist(), strict=True)) == PAIRS
    assert table.line.tolist() == [n + (2 if header else 1) for n in range(len(PAIRS))]


def test_other_column_order_other_columns_and_lines_of_quoted_rows(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text('\ufeffid,Score,sentence2,sentence1\n1,2.5,"two\nlines, ""quoted""",one\n\n2,0,b,a\n', encoding="utf-8")
    table = read_pairs(path, 0, 5)
    assert table.sentence1 == ["one", "a"]
    assert table.sentence2 == ['two\nlines, "quoted"', "b"]
    assert table.score.tolist() == [2.5, 0]
    assert table.line.tolist() == [2, 5]


def test_quotes_in_tab_separated_files_are_plain_characters(tmp_path):
    path = tmp_path / "p.tsv"
    path.write_text('"he said\tshe said" no\t3\n"x\ty\t1\n', encoding="utf-8")
    assert read_pairs(path, 0, 5).sentence1 == ['"he said', '"x']


def test_every_bad_cell_is_named(tmp_path):
    rows = [("a", "b", 1), (" ", "b", 2), ("a", "", 3), ("a", "b", "high"), ("a", "b", "nan"), ("a", "b", 5.5), ("a", "b", "")]
    message = refused(write_pairs(tmp_path / "p.csv", rows))
    for part in (
        "line 3, column sentence1: blank",
        "line 4, column sentence2: blank",
        "line 5, column score: 'high' is not a number",
        "line 6, column score: 'nan' is not a finite number",
        "line 7, column score: 5.5 is outside 0 to 5",
        "line 8, column score: blank",
    ):
        assert part in message


def test_twenty_problems_are_shown_then_a_count(tmp_path):
    message = refused(write_pairs(tmp_path / "p.csv", [("a", "b", 9)] * 33))
    assert message.count("outside 0 to 5") == 20
    assert "and 13 more" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"sentence1,sentence2,score\n", "no rows"),
        (b"sentence1,sentence2\na,b\n", "no column score"),
        (b"sentence1,sentence2,score,score\na,b,1,2\n", "2 columns are named score"),
        (b"left,right\na,b\n", "not three columns"),
        (b"a,b,1\na,b\n", "line 2: 2 columns where the first line has 3"),
        (b'a,b,1\n"open,b,2\n', "line 2"),
        (b'a,b,1\n"x"y,b,2\n', "line 2"),
        ("caf\u00e9,b,1\n".encode("latin-1"), "not UTF-8"),
        (b"a;b;1\n", "not three columns"),
        (b"text,other,label\na,b,1\n", "line 1, column score: 'label' is not a number"),
    ],
)
def test_damaged_files(tmp_path, content, expected):
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    assert expected in refused(path)


def test_missing_file_and_folder(tmp_path):
    assert "No such file" in refused(tmp_path / "absent.csv")
    assert "folder" in refused(tmp_path)


@pytest.mark.parametrize(("part", "pairs"), [("train", 5749), ("dev", 1500), ("test", 1379)])
def test_public_file_without_header(public_data, part, pairs):
    table = read_pairs(public_data / "stsb" / f"stsb-en-{part}.csv", 0, 5)
    assert len(table) == pairs
    assert (table.score.min(), table.score.max()) == (0, 5)
    assert np.isfinite(table.score).all()
