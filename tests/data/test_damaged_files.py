"""Damaged and odd files: each has its exact table and bad rows, or the key part of its error. Nothing but `InputError`."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import random
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pytest
from pyarrow import parquet

from connection.data.pair_file import PairFile
from connection.system.errors import InputError

HEAD = "sentence1,sentence2,score\n"
GOOD = HEAD + "a dog,a cat,1\na man,a boy,2\n"
ROWS = [("a dog", "a cat", 1), ("a man", "a boy", 2)]
MANY = HEAD + "".join(f"dog {n},cat {n},{n % 6}\n" for n in range(5000))
RECORDS = [{"sentence1": one, "sentence2": two, "score": score} for one, two, score in ROWS]


def lines(*records) -> bytes:
    return "\n".join(record if isinstance(record, str) else json.dumps(record) for record in records).encode()


def in_parquet(**columns) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns or {name: [row[name] for row in RECORDS] for name in RECORDS[0]}), file)
    return file.getvalue()


def in_excel(*rows, change=None, sheets=1) -> bytes:
    """A workbook of those rows; change: what is done to the XML of its sheet."""
    book, file = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    for number in range(1, sheets):
        book.create_sheet(f"more {number}")
    book.save(file)
    if change is None:
        return file.getvalue()
    changed = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith("sheet1.xml") else content)
    return changed.getvalue()


def in_zip(name, content) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


NAMES = HEAD.strip().split(",")
SHEET = in_excel(NAMES, *ROWS)
FORMULAS = (NAMES, *ROWS, ("a girl", "a car", "=1+2"), ('="a"&"b"', "a car", 2))
WIDE = (
    ",".join([*(f"c{n}" for n in range(3000)), "sentence1", "sentence2", "score"])
    + "\n"
    + ",".join(["x"] * 3002 + ["1"])
    + "\n"
)
JUNK = random.Random(7).randbytes(5000)

# name: (content, the table) or (content, the table, {line: part of what is wrong there})
READ: dict[str, tuple[Any, ...]] = {
    "good.csv": (GOOD.encode(), ROWS),
    "no-line-end-at-the-end.csv": (GOOD.strip().encode(), ROWS),
    "one-row.csv": (b"a dog,a cat,1", ROWS[:1]),
    "one-row-and-header.csv": ((HEAD + "a dog,a cat,1").encode(), ROWS[:1]),
    "lone-cr.csv": (GOOD.replace("\n", "\r").encode(), ROWS),
    "crlf-and-lf.csv": (GOOD.replace("1\n", "1\r\n").encode(), ROWS),
    "blank-lines.csv": (GOOD.replace("\n", "\n\n  \n").encode(), ROWS),
    "rows-of-delimiters.csv": ((GOOD + ",,\n,,\n").encode(), ROWS),
    "tabs-in.csv": (GOOD.replace(",", "\t").encode(), ROWS),
    "commas-in.tsv": (GOOD.encode(), ROWS),
    "no-ending": (GOOD.replace(",", ";").encode(), ROWS),
    "bom-in-utf16.csv": (GOOD.encode("utf-16"), ROWS),
    "bom-big-endian.csv": (b"\xfe\xff" + GOOD.encode("utf-16-be"), ROWS),
    "packed-without-gz.csv": (gzip.compress(GOOD.encode()), ROWS),
    "unpacked-by-a-browser.csv.gz": (GOOD.encode(), ROWS),
    "two-members.csv.gz": (gzip.compress(HEAD.encode()) + gzip.compress(GOOD.removeprefix(HEAD).encode()), ROWS),
    "other-archive.csv": (bz2.compress(GOOD.encode()), ROWS),
    "title-line.csv": (("Pairs of 2024\n" + GOOD).encode(), ROWS),
    "pretty-object.json": (json.dumps({"data": RECORDS}, indent=1).encode(), ROWS),
    "no-objects.json": (b'[["a", "b", 1]]', [("a", "b", 1)]),
    "zipped-csv.zip": (in_zip("pairs.csv", GOOD), ROWS),
    "ragged.csv": ((GOOD + "a,b\nc,d,3,e\nf\n").encode(), ROWS, {4: "2 columns, the first", 5: "4 columns", 6: "1 col"}),
    "long-number.jsonl": (
        lines(*RECORDS, RECORDS[0] | {"score": -1}).replace(b"-1", b"1" * 5000), ROWS, {3: "'inf' is not a finite number"}
    ),
    "csv-named.xlsx": (GOOD.encode(), ROWS),
    "header-again.csv": ((GOOD + GOOD).encode(), ROWS * 2),
    "quote-in-the-middle.csv": ((GOOD + 'a "big" dog,5" long,3\n').encode(), [*ROWS, ('a "big" dog', '5" long', 3)]),
    "very-many-columns.csv": (WIDE.encode(), [("x", "x", 1)]),
    "nan-and-infinity.csv": (
        (GOOD + "a,b,nan\nc,d,inf\ne,f,-Infinity\ng,h,NaN\n").encode(),
        ROWS,
        {4: "'nan' is not a finite number", 5: "'inf' is not a f", 6: "'-Infinity' is not a f", 7: "'NaN' is not a f"},
    ),
    "per-cent.csv": ((GOOD + "a,b,85%\n").encode(), ROWS, {4: "column score: '85%' is not a number"}),
    "all-per-cent.csv": ((HEAD + "a,b,85%\nc,d,10 %\n").encode(), [("a", "b", 0.85), ("c", "d", 0.1)]),
    "all-per-cent-no-header.csv": (b"a,b,85%\nc,d,10%\n", [("a", "b", 0.85), ("c", "d", 0.1)]),
    "utf32.csv": (GOOD.encode("utf-32"), ROWS),
    "decimal-comma.csv": (b"Text A;Text B;Score\na dog;a cat;2,5\na;b;3\n", [("a dog", "a cat", 2.5), ("a", "b", 3)]),
    "comma-and-point.csv": (b"Text A;Text B;Score\na;b;2,5\nc;d;2.5\n", [("c", "d", 2.5)], {2: "'2,5' is not clear"}),
    "two-commas.csv": (b"sentence1;sentence2;score;other\na;b;2,5;0,1\nc;d;1,5;0,2\n", [("a", "b", 2.5), ("c", "d", 1.5)]),
    "commas-no-header.csv": (b"a;b;2,5\nc;d;1,5\n", [("a", "b", 2.5), ("c", "d", 1.5)]),
    "semicolons-within.csv": (b"p;q;r,b,1\nd;e;f,c,2\n", [("p;q;r", "b", 1), ("d;e;f", "c", 2)]),
    "thousands.csv": (b"Text A;Text B;Score\na;b;1,234\nc;d;5\n", [("c", "d", 5)], {2: "'1,234' is not clear"}),
    "underscore.csv": ((GOOD + "a,b,4_5\n").encode(), ROWS, {4: "'4_5' is not a number"}),
    "missing-keys.jsonl": (
        lines({"sentence1": "a", "sentence2": "b"}, *RECORDS, {"sentence2": "b", "score": 3}, {}),
        ROWS,
        {1: "column score: blank", 4: "column sentence1: blank", 5: "column sentence1: blank; column sentence2: blank"},
    ),
    "nested.jsonl": (
        lines(*RECORDS, RECORDS[0] | {"sentence2": [1, 2]}, RECORDS[0] | {"score": {"mean": 2}}, RECORDS[0] | {"tags": [1]}),
        [*ROWS, ROWS[0]],
        {3: "column sentence2: nested or binary (list)", 4: "column score: nested or binary (dict)"},
    ),
    "half-a-character.jsonl": (
        lines(*RECORDS, RECORDS[0] | {"sentence1": "a\0b"}, RECORDS[0] | {"sentence2": "a\ud83d"}),
        ROWS,
        {3: "column sentence1: text with a NUL", 4: "column sentence2: text with half a character"},
    ),
    "python-nan.jsonl": (lines(*RECORDS, RECORDS[0] | {"score": float("nan")}), ROWS, {3: "nan (no value)"}),
    "null.json": (lines([*RECORDS, RECORDS[0] | {"score": None}]), ROWS, {3: "column score: blank"}),
    "json-lines-named.json": (lines(*RECORDS), ROWS),
    "blank-lines.jsonl": (b"\n" + lines(RECORDS[0], "", "  ", RECORDS[1]) + b"\n\n", ROWS),
    "long-cell.jsonl": (lines({"sentence1": "x" * 10_000_000, "sentence2": "b", "score": 1}), [("x" * 10_000_000, "b", 1)]),
    "parquet-named.csv": (in_parquet(), ROWS),
    "missing-and-bytes.parquet": (
        in_parquet(sentence1=["a", None, "c"], sentence2=["b", "d", "e"], score=[1.0, 2.0, None], raw=[b"1", b"2", b"3"]),
        [("a", "b", 1)],
        {2: "column sentence1: blank", 3: "column score: blank"},
    ),
    "bytes-for-text.parquet": (
        in_parquet(sentence1=[b"a", b"\xff"], sentence2=["b"] * 2, score=[1, 1]),
        [("a", "b", 1)],
        {2: "column sentence1: nested or binary (bytes)"},
    ),
    "excel-named.csv": (SHEET, ROWS),
    "empty-rows.xlsx": (in_excel([], NAMES, [], ROWS[0], [None, None], ROWS[1], []), ROWS),
    "more-sheets.xlsx": (in_excel(NAMES, *ROWS, sheets=3), ROWS),
    "wrong-size.xlsx": (in_excel(NAMES, *ROWS, change=lambda xml: re.sub(rb"A1:C3", b"A1", xml)), ROWS),
    "no-size-and-blank-labels.xlsx": (
        in_excel(NAMES, *ROWS, ("a", "b"), ("c", "d", 3, "note"), change=lambda xml: re.sub(rb"<dimension[^>]*>", b"", xml)),
        [*ROWS, ("c", "d", 3)],  # a note beside the table is no cell of it
        {4: "column score: blank"},
    ),
    "formulas-not-computed.xlsx": (
        in_excel(*FORMULAS),
        ROWS,
        {4: "column score: a formula without a computed value", 5: "column sentence1: a formula without a computed value"},
    ),
    "formulas-computed.xlsx": (
        in_excel(*FORMULAS[:4], change=lambda xml: re.sub(rb"</f><v ?/>|</f><v></v>", b"</f><v>3</v>", xml)),
        [*ROWS, ("a girl", "a car", 3)],
    ),
    "excel-errors.xlsx": (
        in_excel(NAMES, *ROWS, ("a", "b", "#DIV/0!"), ("#N/A", "b", 2)),
        ROWS,
        {4: "column score: the Excel error #DIV/0!", 5: "column sentence1: the Excel error #N/A"},
    ),
    "booleans.xlsx": (in_excel(NAMES, ("a", "b", True), ("c", "d", False)), [("a", "b", 1), ("c", "d", 0)]),
}  # fmt: skip

# name: (content, part of the error)
REFUSED = {
    "empty.csv": (b"", "is empty"),
    "empty.csv.gz": (gzip.compress(b""), "is empty"),
    "empty.parquet": (b"", "is empty"),
    "only-blank-lines.csv": (b"\n\n  \n\r\n", "has no rows"),
    "only-bom.csv": (b"\xef\xbb\xbf", "has no rows"),
    "only-header.csv": (HEAD.encode(), "has a header and no rows"),
    "only-header.xlsx": (in_excel(NAMES), "has a header and no rows"),
    "no-cells.xlsx": (in_excel(), "has no rows"),
    "no-records.json": (b"[]", "has no rows"),
    "no-rows.parquet": (in_parquet(sentence1=[], sentence2=[], score=[]), "has no rows"),
    "nul-bytes.csv": (GOOD.replace("cat", "c\0t").encode(), "is not a text file: it holds NUL bytes"),
    "nul-bytes-further-down.csv": ((MANY + "a,b\0,1\n").encode(), "line 5002: a NUL character"),
    "zeros.csv": (bytes(1000), "holds NUL bytes"),
    "junk.csv": (JUNK, "is not a text file"),
    "junk-without-nul.csv": (JUNK.replace(b"\0", b"\1"), "is not a text file"),
    "image.csv": (b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + JUNK, "is not a text file"),
    "odd-utf16.csv": (GOOD.encode("utf-16")[:-1], "is not UTF-16"),
    "truncated.csv.gz": (gzip.compress(MANY.encode())[:-20], "is a damaged gzip file"),
    "hardly-begun.csv.gz": (gzip.compress(GOOD.encode())[:6], "is a damaged gzip file"),
    "changed.csv.gz": (gzip.compress(MANY.encode())[:-8] + b"12345678", "is a damaged gzip file: CRC check failed"),
    "garbage-after.csv.gz": (gzip.compress(GOOD.encode()) + b"garbage", "is a damaged gzip file"),
    "excel.xlsx.gz": (gzip.compress(SHEET), "only text files may be gzipped"),
    "parquet.parquet.gz": (gzip.compress(in_parquet()), "only text files may be gzipped"),
    "mixed.csv": (
        "caf\u00e9,b,1\nd\u00e9j\u00e0,d,2\n".encode() + "na\u00efve,c,2\n".encode("latin-1"),
        "mixes encodings: 2 lines are UTF-8, 1 are not, the first is line 3",
    ),
    "mixed-within-lines.csv": ("caf\u00e9,".encode() + "caf\u00e9,1\n".encode("latin-1"), "mixes encodings"),
    "broken-utf8.csv": (MANY.encode() + "\u00e4,b,1\n".encode() * 9 + b"\xc3,b,1\n", "the first is line 5011. Save it"),
    "broken-after-bom.csv": (b"\xef\xbb\xbf" + GOOD.encode() + b"\xff,b,1\n", "near line 4: byte 0xff is not UTF-8 with BOM"),
    "unclosed-quote.csv": ((GOOD + '"open,b,2\nc,d,3\n').encode(), "line 4: unexpected end of data. Is a quote"),
    "unclosed-then-closed.csv": ((GOOD + '"open,b,2\n"c",d,3\n').encode(), "line 4: ',' expected after '\"'"),
    "text-after-quote.csv": ((GOOD + '"he" said,b,2\n').encode(), "line 4: ',' expected after '\"'"),
    "long-cell.csv": ((GOOD + "x" * 10_000_000 + ",b,1\n").encode(), "line 4: a cell of over 1,000,000 characters"),
    "long-cell.tsv": (GOOD.replace(",", "\t").encode() + b"x" * 10_000_000 + b"\tb\t1\n", "line 4: a cell of over 1,000,000"),
    "long-open-cell.csv": ((HEAD + '"' + "x,y,1\n" * 500_000).encode(), "line 2: a cell of over 1,000,000 characters"),
    "two-of-a-name.csv": ((HEAD.strip() + ",score\na,b,1,2\n").encode(), "2 columns are named score"),
    "two-of-a-name.xlsx": (in_excel([*NAMES, "Score"], ["a", "b", 1, 2]), "2 columns are named score"),
    "two-of-a-name.jsonl": (lines(*RECORDS, '{"sentence1": "a", "score": 1, "score": 2}'), "the name 'score' stands twice"),
    "numbers-only.csv": (b"1,2,3\n4,5,6\n", "numbers: 1 or 2 or 3"),
    "no-label.csv": (b"a dog,a cat\na man,a boy\n", "text: column 1 or 2; numbers: none"),
    "no-label-by-name.csv": (b"sentence1,sentence2,z\na dog,a cat,3\n", "column of the label: none"),
    "one-column.txt": (b"a dog\na cat\n", "text: column 1; numbers: none"),
    "web-page.csv": (b"<!DOCTYPE html>\n<html><body>404: Not Found</body></html>\n", "is a web page or XML"),
    "all-formulas.xlsx": (in_excel(["=A2", "=B2", "=C2"]), "which columns"),
    "object.json": (b'{"data": []}', "which columns"),
    "number.json": (b"17", "holds no JSON array of objects"),
    "some-objects.json": (lines([*RECORDS, "a"]), "row 3: not an object with named values"),
    "truncated.json": (lines(RECORDS)[:-5], "is not JSON (Expecting"),
    "deep.json": (b"[" * 200_000, "is not JSON ("),
    "deep.jsonl": (lines(RECORDS[0]) + b"\n" + b"[" * 200_000, "line 2: not JSON ("),
    "broken-line.jsonl": (lines(*RECORDS, '{"sentence1": "a", '), "line 3: not JSON (Expecting"),
    "csv-named.jsonl": (GOOD.encode(), "line 1: not JSON"),
    "unknown-names.jsonl": (lines({"x": "a", "y": "b", "z": 1}), "the first row: 1 'x', 2 'y', 3 'z'"),
    "truncated.parquet": (in_parquet()[:-100], "is a damaged Parquet file"),
    "middle-gone.parquet": (in_parquet()[:30] + bytes(100) + in_parquet()[130:], "is a damaged Parquet file"),
    "csv-named.parquet": (GOOD.encode(), "is a damaged Parquet file, or none"),
    "truncated.xlsx": (SHEET[: len(SHEET) // 2], "is a damaged Excel file"),
    "zip-named.xlsx": (in_zip("pairs.csv", GOOD), "is a damaged Excel file (.xlsx), or another archive"),
    "broken-xml.xlsx": (in_excel(NAMES, *ROWS, change=lambda xml: xml[:-200]), "is a damaged Excel file"),
    "old.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "is an old (.xls) or encrypted Excel file"),
    "encrypted.xlsx": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "is an old (.xls) or encrypted Excel file"),
}  # fmt: skip


def read(path: Path):
    file = PairFile.open(path)
    assert str(file).startswith(str(path))
    chunks = list(file.chunks(1000))
    rows = [row for chunk in chunks for row in zip(chunk.sentence1, chunk.sentence2, chunk.label.tolist(), strict=True)]
    return rows, {row.line: row.what for chunk in chunks for row in chunk.bad}


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value)) < 2500
    return str(raised.value)


@pytest.mark.parametrize("name", READ)
def test_odd_file_is_read(tmp_path, name):
    content, expected, *reported = READ[name]
    (tmp_path / name).write_bytes(content)
    rows, bad = read(tmp_path / name)
    assert rows == expected
    parts = reported[0] if reported else {}
    assert list(bad) == list(parts)
    assert all(part in bad[line] for line, part in parts.items()), bad


@pytest.mark.parametrize("name", REFUSED)
def test_damaged_file_is_refused(tmp_path, name):
    content, part = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    assert part in refusal(tmp_path / name)


def test_folder_missing_file_pipe_and_loop(tmp_path):
    assert "is a folder" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "absent.csv")
    assert "File name too long" in refusal(tmp_path / ("x" * 500))
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.csv")
        assert "is no regular file" in refusal(tmp_path / "pipe.csv")
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    assert "can't be read" in refusal(tmp_path / "loop.csv")


def test_unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "p.csv"
    path.write_bytes(GOOD.encode())
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser may read everything
        monkeypatch.setattr("connection.data.formats.packed.open", lambda *_: os.open("/proc/1/nothing", 0), raising=False)
    assert "can't be read" in refusal(path)


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.jsonl", "p.json", "p.csv.gz", "p.parquet", "p.xlsx"])
def test_any_truncation_and_any_changed_byte(tmp_path, name):
    """Whatever is cut off or changed: a table, bad rows, or a refusal, and never another exception."""
    whole = {
        "p.csv": 'sentence1,sentence2,score\n"a ""dog""",k\u00e4se,1\na,b,2\n'.encode(),
        "p.tsv": 'sentence1\tsentence2\tscore\n"a ""dog"""\tk\u00e4se\t1\na\tb\t2\n'.encode(),
        "p.jsonl": lines(*RECORDS),
        "p.json": lines(RECORDS),
        "p.csv.gz": gzip.compress(GOOD.encode()),
        "p.parquet": in_parquet(),
        "p.xlsx": SHEET,
    }[name]
    dice = random.Random(name)
    for number in range(60):
        content = bytearray(whole)
        if number % 2:
            del content[dice.randrange(len(content)) :]
        else:
            content[dice.randrange(len(content))] = dice.randrange(256)
        (tmp_path / name).write_bytes(content)
        try:
            read(tmp_path / name)
        except InputError as error:
            assert str(tmp_path / name) in str(error)  # noqa: PT017
