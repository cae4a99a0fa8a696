"""Forms by content and not by name: what programs write under a wrong ending, with rare delimiters, or in their own form."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile

import pytest

from connection.data.pair_file import PairFile
from tests.data.test_pair_file import read, refused, write

ROWS = [(f"the door {number} stops", f"look at lamp {number}", float(number % 6)) for number in range(8)]
NAMES = ("sentence1", "sentence2", "score")


def delimited(delimiter, rows=ROWS, names=NAMES, quoting=csv.QUOTE_MINIMAL):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows([names, *rows])
    return text.getvalue()


RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
MARKDOWN = "\n".join("| " + " | ".join(map(str, row)) + " |" for row in (NAMES, (":---", "----", "--:"), *ROWS))
CONSOLE = " sentence1 | sentence2 | score \n-----------+-----------+-------\n" + "\n".join(
    " | ".join(map(str, row)) for row in ROWS
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.xls", delimited("\t")), ("p.xlsx", delimited(",")), ("p.ods", delimited(";")), ("p", delimited(",")),
        ("p.txt", "\n".join(map(json.dumps, RECORDS))),
        ("p.csv", json.dumps(RECORDS, indent=1)),
        ("p.txt", json.dumps(RECORDS)),
        ("p.txt", delimited("^")), ("p.txt", delimited("~")),
        ("p.txt", delimited("\x01")), ("p.txt", delimited("\x1f")),
        ("p.txt", delimited(" ", quoting=csv.QUOTE_NONNUMERIC)),
        ("p.txt", delimited(" ", [(str(n), *row) for n, row in enumerate(ROWS)], quoting=csv.QUOTE_NONNUMERIC)),
        ("p.md", MARKDOWN), ("p.txt", CONSOLE), ("p.csv", "\n".join(f'"{line}"' for line in delimited(",").split("\r\n")[:-1])),
        ("p.csv", delimited(",") + "\x1a"),
    ],
    ids=["tabs.xls", "commas.xlsx", "semicolons.ods", "no-ending", "jsonl.txt", "json.csv", "json.txt", "caret", "tilde",
         "hive", "unit-separator", "r", "r-row-names", "markdown", "psql",
         "lines-in-quotes", "end-mark"],
)  # fmt: skip
def test_read_by_content(tmp_path, name, text):
    rows, bad, _ = read(write(tmp_path / name, text))
    assert ([(one.strip(), two.strip(), label) for one, two, label in rows], bad) == (ROWS, {})


def test_utf16_text_named_xls(tmp_path):
    """What Excel saves as "Unicode text"."""
    (tmp_path / "p.xls").write_bytes(delimited("\t").encode("utf-16"))
    assert read(tmp_path / "p.xls")[:2] == (ROWS, {})


def in_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("p.csv"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.xls", b"<html><table><tr><td>a</td></tr></table></html>", "web page or XML, as some programs save tables"),
        ("p.xls", b'\xef\xbb\xbf<?xml version="1.0"?><Workbook/>', "save it as .xlsx or CSV"),
        ("p.csv", b"<!DOCTYPE html><html></html>", "web page"),
        ("p.sav", b"$FL2@(#) SPSS\0\0", "an SPSS file: save its table as CSV"),
        ("p.pdf", b"%PDF-1.4\n", "a PDF file"), ("p.db", b"SQLite format 3\0", "an SQLite database"),
        ("p.rds", gzip.compress(b"X\n\0\0\0\3", mtime=0), "an R file"), ("p.pkl", b"\x80\4\x95\0\0", "a Python pickle"),
        ("p.tar.gz", gzip.compress(in_tar(), mtime=0), "a tar archive: unpack it"),
        ("p.csv.zst", b"\x28\xb5\x2f\xfd\1", "unpack it"),
        ("p.jsonl", b"{'sentence1': 'a'}", "Python, not JSON: write it with json.dumps"),
        ("p.json", b"sentence1,sentence2,score\na,b,1\n", "'sentence1,sentence2,score'. If it is a table, name it .csv"),
        ("p.jsonl", b'# made by hand\n{"a": 1}\n', "line 1: not JSON"), ("p.txt", b"a###b###1\n", "no known delimiter"),
    ],
)  # fmt: skip
def test_refused_with_what_it_is(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    assert said in refused(tmp_path / name)


def test_a_number_of_thousands_of_digits_in_a_column_that_is_not_used(tmp_path):
    lines = [json.dumps(record)[:-1] + ', "id": 1' + "0" * 5000 + "}" for record in RECORDS]
    for text in ("\n".join(lines), f"[{','.join(lines)}]"):
        assert read(write(tmp_path / "p.json", text))[:2] == (ROWS, {})


def test_words_before_a_brace_are_no_json(tmp_path):
    rows = [('{"a": 1}', "b c", 1.0), ("d e", "[x]", 0.0)]
    assert read(write(tmp_path / "p.csv", delimited(",", rows)))[:2] == (rows, {})
    assert "comma-separated" in str(PairFile.open(tmp_path / "p.csv"))


@pytest.mark.parametrize(
    "shape",
    [
        lambda rows: {"hits": {"total": 8, "hits": [{"_id": "7", "_source": row} for row in rows]}},
        lambda rows: {"data": {"pairs": {"nodes": rows}}},
        lambda rows: {f"pair-{number}": row for number, row in enumerate(rows)},
        lambda rows: [row | {"score": [row["score"]]} for row in rows],
        lambda rows: [row | {"score": {"$numberDouble": str(row["score"])}} for row in rows],
        lambda rows: [row | {"sentence1": {"text": row["sentence1"]}, "sentence2": [row["sentence2"]]} for row in rows],
    ],
    ids=["elastic", "graphql", "by-key", "list-of-one", "mongo", "objects-of-one"],
)  # fmt: skip
def test_json_of_programs(tmp_path, shape):
    assert read(write(tmp_path / "p.json", json.dumps(shape(RECORDS))))[:2] == (ROWS, {})


def test_choices_of_a_labelling_tool(tmp_path):
    records = [
        {"text1": one, "text2": two, "similarity": ["Similar" if label > 2 else "Dissimilar"]} for one, two, label in ROWS
    ]
    rows, bad, _ = read(write(tmp_path / "p.json", json.dumps(records)))
    assert ([label for _, _, label in rows], bad) == ([float(label > 2) for _, _, label in ROWS], {})


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a b,c d,0,5", "e f,g h,2,0"], "a label with a decimal comma and no quotes? Write a point, or save with semicolons"),
        (["\u201ca, b\u201d,\u201cc d\u201d,3"], "the quotes around its cells are \u201c and not"),
        (["`a, b`,`c`,3"], "are ` and not"),
    ],
)  # fmt: skip
def test_the_cause_of_ragged_rows(tmp_path, rows, said):
    good, bad, _ = read(write(tmp_path / "p.csv", "\n".join([",".join(NAMES), *rows])))
    assert (good, len(bad)) == ([], len(rows))
    assert all(said in what for what in bad.values())
