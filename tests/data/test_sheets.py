"""Workbooks: which sheet and rows are the table, what stands in its cells, and what is refused before a library reads it."""

from __future__ import annotations

import datetime
import io
import re
import zipfile

import openpyxl
import pytest

from connection.data.pair_file import PairFile
from connection.system.errors import InputError
from tests.conftest import run_inside
from tests.data.test_damaged_files import NAMES, ROWS, in_excel, in_zip
from tools import check

TABLE = [NAMES, *ROWS]
OFFICE = "urn:oasis:names:tc:opendocument:xmlns"


def workbook(*sheets) -> bytes:
    """A workbook of (title, rows, and what else is done to the sheet)."""
    book, file = openpyxl.Workbook(), io.BytesIO()
    book.remove(book.active)
    for title, rows, *details in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
        for detail in details:
            detail(sheet)
    book.save(file)
    return file.getvalue()


def changed(content: bytes, ending: str, change) -> bytes:
    """The workbook with one of its parts changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, change(old.read(name)) if name.endswith(ending) else old.read(name))
    return file.getvalue()


def in_ods(rows: str) -> bytes:
    names = " ".join(f'xmlns:{name}="{OFFICE}:{name}:1.0"' for name in ("office", "table", "text"))
    body = f'<office:spreadsheet><table:table table:name="pairs">{rows}</table:table></office:spreadsheet>'
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("META-INF/manifest.xml", f'<manifest xmlns="{OFFICE}:manifest:1.0"/>')
        archive.writestr(
            "content.xml", f"<office:document-content {names}><office:body>{body}</office:body></office:document-content>"
        )
    return file.getvalue()


def ods_row(*values, **attributes) -> str:
    def cell(value) -> str:
        more = "".join(f' table:{name.replace("_", "-")}="{number}"' for name, number in attributes.items())
        kind = f'office:value-type="float" office:value="{value}"' if isinstance(value, int) else 'office:value-type="string"'
        return f"<table:table-cell {kind}{more}><text:p>{value}</text:p></table:table-cell>"

    return f"<table:table-row>{''.join(map(cell, values))}</table:table-row>"


def opened(tmp_path, content, name="p.xlsx", **asked) -> PairFile:
    (tmp_path / name).write_bytes(content)
    return PairFile.open(tmp_path / name, **asked)


def pairs(file: PairFile) -> list[tuple]:
    """Line, sentences and label of every row; a bad row's cells are what is wrong with it."""
    found: list[tuple] = []
    for chunk in file.chunks():
        found += zip(chunk.line.tolist(), chunk.sentence1, chunk.sentence2, chunk.label.tolist(), strict=True)
        found += [(row.line, row.what) for row in chunk.bad]
    return sorted(found)


def numbered(first: int) -> list[tuple]:
    return [(first + place, one, two, label) for place, (one, two, label) in enumerate(ROWS)]


def refusal(tmp_path, content, name="p.xlsx", **asked) -> str:
    with pytest.raises(InputError) as raised:
        pairs(opened(tmp_path, content, name, **asked))
    return str(raised.value)


@pytest.mark.parametrize(
    ("above", "said"),
    [
        ([["Trace matrix of spring"], ["by hand", 2024], []], "header in row 4"),
        ([["Pairs", None, "Rating"]], "header in row 2"),
        ([], ""),
    ],
)
def test_rows_above_the_header(tmp_path, above, said):
    file = opened(tmp_path, in_excel(*above, *TABLE))
    assert pairs(file) == numbered(len(above) + 2)
    assert said in str(file)
    assert file.columns.names == tuple(NAMES)


def test_header_of_two_rows(tmp_path):
    def merge(sheet):
        sheet.merge_cells("A1:B1")
        sheet.merge_cells("C1:C2")

    file = opened(tmp_path, workbook(("a", [["Sentence", None, "Score"], ["A", "B"], *ROWS], merge)))
    assert pairs(file) == numbered(3)
    assert file.columns.names == ("Sentence A", "Sentence B", "Score")
    assert "header in rows 1 and 2" in str(file)


def test_a_header_below_data_leaves_no_row_out(tmp_path):
    rows = [["p q", "r s", 3], *TABLE, *ROWS * 3]
    found = pairs(opened(tmp_path, in_excel(*rows)))
    assert found[0] == (1, "p q", "r s", 3)
    assert found[1] == (2, "column 3: 'score' is not a number")


def test_header_row_is_given(tmp_path):
    content = in_excel(["one", "two", "three"], ["left", "right", "how"], *ROWS)
    file = opened(tmp_path, content, header_row=2, declared_columns="sentence1=left,sentence2=right,label=how")
    assert pairs(file) == numbered(3)
    said = refusal(tmp_path, content, header_row=9)
    assert "no names in row 9 (--header-row); rows with cells near it: 2, 3, 4" in said
    text = opened(tmp_path, b"x\nleft,right,how\na dog,a cat,1\na man,a boy,2\n", "p.csv", header_row=2,
                  declared_columns="sentence1=left,sentence2=right,label=how")  # fmt: skip
    assert pairs(text) == numbered(3)


def test_unknown_names_below_a_title_are_shown_with_the_flag(tmp_path):
    said = refusal(tmp_path, in_excel(["Pairs"], ["left", "right", "how"], *ROWS))
    assert "--header-row ROW" in said
    assert "row 2: 'left' | 'right' | 'how'" in said


def test_sheets(tmp_path):
    notes, table, old = ("Read me", [["How to fill in"]]), ("pairs", TABLE), ("old", [NAMES, ["x y", "z", 5]])
    file = opened(tmp_path, workbook(notes, table))
    assert pairs(file) == numbered(2)
    assert "sheet 'pairs', number 2 of 2; the others are not read: 'Read me'" in str(file)
    assert pairs(opened(tmp_path, workbook(("empty", []), table))) == numbered(2)
    said = refusal(tmp_path, workbook(notes, table, old))
    assert "its sheets: 'Read me', 'pairs', 'old'" in said
    assert "--sheet NAME" in said
    for asked in ("old", "3", "OLD"):
        assert pairs(opened(tmp_path, workbook(notes, table, old), sheet=asked)) == [(2, "x y", "z", 5)]
    assert "has no sheet 'new'; its sheets: 1 'Read me', 2 'pairs'" in refusal(tmp_path, workbook(notes, table), sheet="new")
    (tmp_path / "p.csv").write_text("sentence1,sentence2,score\na,b,1\n")
    with pytest.raises(InputError, match="has no sheets"):
        PairFile.open(tmp_path / "p.csv", sheet="1")


def test_merged_cells_are_filled_down_and_said(tmp_path):
    rows = [NAMES, ["a dog", "a cat", 1], [None, "a bird", 2], [None, "a cow", 3], ["a man", "a boy", 2]]
    file = opened(tmp_path, workbook(("a", rows, lambda sheet: sheet.merge_cells("A2:A4"))))
    assert pairs(file) == [
        (2, "a dog", "a cat", 1), (3, "a dog", "a bird", 2), (4, "a dog", "a cow", 3), (5, "a man", "a boy", 2)
    ]  # fmt: skip
    assert "1 merged cells are filled" in str(file)
    assert "column sentence1: blank" in pairs(opened(tmp_path, in_excel(*rows)))[1][1]


def test_what_stands_around_the_table(tmp_path):
    def around(sheet):
        sheet["F3"] = "ask Kim"
        sheet["F5"] = "a note beside"
        sheet["F9"] = "a note below"
        sheet.row_dimensions[4].hidden = True

    rows = [[], [], *([None, *row] for row in TABLE), [None, "Total", None, 3], [None, "Mean:", None, 1.5]]
    file = opened(tmp_path, workbook(("a", [[], [], [None, *NAMES], *rows[3:]], around)))
    assert pairs(file) == numbered(4)
    assert "not read: totals in row 6, 7" in str(file)
    assert "1 hidden rows are read too" in str(file)
    total = [*TABLE, ["Total", "a sentence", 3]]
    assert pairs(opened(tmp_path, in_excel(*total)))[2] == (4, "Total", "a sentence", 3)


def test_cells(tmp_path):
    def write(sheet):
        sheet["C2"].number_format = "0%"
        sheet["C3"] = datetime.date(2024, 5, 1)

    rows = [NAMES, ("a", 1000, 0.2), ("c", "d", None), ("e", "f", True), ("g", "h_x000D_\ni", 3), ("j", "k", "=1+2")]
    found = pairs(opened(tmp_path, workbook(("a", rows, write))))
    assert found[0] == (2, "a", "1000", 0.2)
    assert found[1][1].startswith("column score: '2024-05-01 00:00:00' is a date: spreadsheets take a typed 1.5 for one")
    assert [row[3] for row in found[3:4]] == [3]
    assert found[3][2].split() == ["h", "i"]
    assert found[4] == (6, "column score: a formula without a computed value; open the file in Excel and save it")
    sample = str(opened(tmp_path, in_excel(NAMES, ("a", "b", "=1"), ("c", "d", 1))))
    assert "'b' | (a formula without a computed value" in sample
    assert "\0" not in sample
    assert "\\x00" not in sample


def test_strict_open_xml(tmp_path):
    def strict(xml: bytes) -> bytes:
        xml = xml.replace(
            b"http://schemas.openxmlformats.org/spreadsheetml/2006/main", b"http://purl.oclc.org/ooxml/spreadsheetml/main"
        )
        return xml.replace(
            b"http://schemas.openxmlformats.org/officeDocument/2006", b"http://purl.oclc.org/ooxml/officeDocument"
        )

    assert pairs(opened(tmp_path, changed(in_excel(*TABLE), "", strict))) == numbered(2)


def test_open_document(tmp_path):
    cell = '<table:table-cell table:number-columns-repeated="16384"/>'
    empty = f'<table:table-row table:number-rows-repeated="{{}}">{cell}</table:table-row>'
    rows = ods_row(*NAMES) + ods_row(*ROWS[0]) + empty.format(2) + ods_row(*ROWS[1]) + empty.format(1048570)
    file = opened(tmp_path, in_ods(rows), "p.ods")
    assert pairs(file) == [(2, *ROWS[0]), (5, *ROWS[1])]
    assert "OpenDocument, sheet 'pairs'" in str(file)
    wide = ods_row(*NAMES) + ods_row(1, number_columns_repeated=16384, number_rows_repeated=1) * 1300
    assert "stretches over 1,301 rows and 16,384 columns" in refusal(tmp_path, in_ods(wide), "p.ods")
    assert "damaged OpenDocument" in refusal(tmp_path, in_ods(rows)[:-400], "p.ods")


def test_many_empty_formatted_rows(tmp_path):
    rows = b"".join(b'<row r="%d"><c r="A%d" s="0"/></row>' % (number, number) for number in range(4, 20_000))
    content = in_excel(*TABLE, change=lambda xml: xml.replace(b"</sheetData>", rows + b"</sheetData>"))
    assert pairs(opened(tmp_path, content)) == numbered(2)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>', "stretches over 1,048,576 rows and 16,384 columns"),
        (b'<row r="1000000000000000000"><c r="A1000000000000000000"><v>1</v></c></row>', "stretches over 1,000,000,000"),
        (b'<row r="9999999"><c><f>1</f></c></row>', "stretches over 9,999,999 rows"),
        (b'<row r="4"><c r="A4" t="inlineStr"><is><t>' + b"x" * (5 << 20) + b"</t></is></c></row>", "a text of over 4 MiB"),
    ],
)
def test_bounds_of_a_sheet(tmp_path, cell, said):
    content = in_excel(*TABLE, change=lambda xml: xml.replace(b"</sheetData>", cell + b"</sheetData>"))
    assert said in refusal(tmp_path, content)


def test_bounds_of_the_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("connection.data.formats.sheet_parts.LARGEST_PART", 1 << 20)
    content = changed(in_excel(*TABLE), "sheet1.xml", lambda xml: xml + b" " * (1 << 20))
    assert "its part 'xl/worksheets/sheet1.xml' unpacks to over 1 MiB" in re.sub(" 0 MiB", "", refusal(tmp_path, content))
    monkeypatch.undo()
    file = io.BytesIO(in_excel(*TABLE))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("xl/workbook.xml", "")
    assert "two parts of one name" in refusal(tmp_path, file.getvalue())


@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_the_command_takes_sheet_and_header_row(tmp_path, tiny_folder, mode):
    rows = [["one"], ["left", "right", "how"], *ROWS * 3, ["a", None, 2]]
    (tmp_path / "p.xlsx").write_bytes(workbook(("Read me", [["notes"]]), ("x", rows)))
    columns = "sentence1=left,sentence2=right,label=how"
    shown = run_inside(check.main, tmp_path / "p.xlsx", "--model-dir", tiny_folder, "--sheet", "x", "--header-row", 2,
                       "--columns", columns, "--on-bad-rows", mode)  # fmt: skip
    assert "6 pairs, labels 1 to 2" in shown.stdout
    assert "header in row 2" in shown.stdout
    assert "1 rows (lines 9); column right: blank" in shown.stdout
    assert shown.returncode == (0 if mode == "skip" else 2), shown.stdout
    shown = run_inside(check.main, tmp_path / "p.xlsx", "--model-dir", tiny_folder, "--header-row", "-1")
    assert "--header-row: -1 is below the smallest value, 0" in shown.stderr
    assert shown.returncode == 2


def test_zip_archives(tmp_path):
    assert pairs(
        opened(tmp_path, in_zip("deep/pairs.csv", "sentence1,sentence2,score\na dog,a cat,1\na man,a boy,2\n"), "p.zip")
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "y")
        archive.writestr("__MACOSX/._a.csv", "z")
    said = refusal(tmp_path, file.getvalue(), "p.zip")
    assert "a zip archive of 2 files ('a.csv', 'b.csv')" in said
    assert f'python -m zipfile -e "{tmp_path / "p.zip"}" unpacked' in said
