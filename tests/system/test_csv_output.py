"""No cell of a CSV file is a formula, whatever a spreadsheet takes for the separator, and each text comes back."""

from __future__ import annotations

import csv
import io
import itertools

import numpy as np
import pandas as pd
import pytest

from connection.system.csv_output import as_cell, from_cell, new_csv

LIVE = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
TEXTS = [
    *("a;=1+1", 'a;"=1+1', "a;'=x", "two\n=lines", "tab\t@x", "'=x", "=x", "\ttab", "a;b, c", 'say "no"; -5', "x;-5", "a\r+b"),
    *("\uff1dwide;\uff20x", "東京; =x", "it's"),
]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_no_cell_is_a_formula_under_any_list_separator(tmp_path, delimiter):
    with new_csv(tmp_path / "t.csv") as output:
        output.rows([["file", "text"], *(["/a/b", text] for text in TEXTS)])
        output.table(pd.DataFrame({"number": np.arange(len(TEXTS)), "text": TEXTS}))
    text = (tmp_path / "t.csv").read_text(encoding="utf-8-sig")
    cells = [cell for row in csv.reader(io.StringIO((tmp_path / "t.csv").read_bytes().decode("utf-8-sig"), newline=""),
                                        delimiter=delimiter) for cell in row]  # fmt: skip
    assert len(cells) > len(TEXTS)
    assert not [cell for cell in cells if cell.startswith(LIVE)]
    if delimiter == ",":
        assert [from_cell(cell) for cell in cells[3 : 2 + 2 * len(TEXTS) : 2]] == TEXTS
    assert text.count("=1+1") == 4


def test_every_short_text_of_odd_letters_comes_back():
    for length in range(5):
        for letters in itertools.product("=-'\";\t\n\ra", repeat=length):
            text = "".join(letters)
            assert from_cell(as_cell(text)) == text


def test_numbers_stay_numbers_and_a_nul_is_shown(tmp_path):
    table = pd.DataFrame({"label": np.array([-4.4, 3], np.float32), "text": ["a\0b", "c"], "line": [1, 2], "x": [-0.5, np.nan]})
    with new_csv(tmp_path / "t.csv", encoding="utf-8") as output:
        output.table(table)
        output.table(table[:1])
    assert (
        tmp_path / "t.csv"
    ).read_bytes() == b"label,text,line,x\r\n-4.4,a\\x00b,1,-0.5\r\n3.0,c,2,\r\n-4.4,a\\x00b,1,-0.5\r\n"


def test_a_link_is_replaced_and_an_error_leaves_the_file_as_it_was(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "t.csv").symlink_to(tmp_path / "mine")
    with new_csv(tmp_path / "t.csv") as output:
        output.rows([["half \ud800", "b"]])
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "t.csv").read_bytes() == b"\xef\xbb\xbfhalf \\ud800,b\r\n"
    with pytest.raises(KeyError), new_csv(tmp_path / "t.csv") as output:
        output.rows([["other"]])
        raise KeyError
    assert (tmp_path / "t.csv").read_bytes() == b"\xef\xbb\xbfhalf \\ud800,b\r\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "t.csv"]
