"""Any table written in any supported form comes back equal, or is refused with file, row and column. Same examples each run."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import tempfile
from pathlib import Path

import openpyxl
import pyarrow
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from connection.data.pair_file import PairFile
from connection.data.row_texts import is_text
from connection.system.errors import InputError

NAMES = ["sentence1", "sentence2", "score"]
FEW = settings(derandomize=True, deadline=None, max_examples=60, database=None)
TRICKY = st.text("\"',;|\t\n {}[]\\#=ä한😀a1.\u2028\x85\ufeff\u200b", min_size=1, max_size=12)
ANY = st.text(st.characters(exclude_characters="\0\r", exclude_categories=["Cs"]), min_size=1, max_size=20)
# csv.writer with "\r\n" encloses "\r" as well; other line ends leave it bare, which no reader can undo.
SENTENCES = st.one_of(TRICKY, ANY, st.sampled_from(["nan", "0", "yes", "NULL", " a ", "=1+1", '"', '""', "a\n\nb"]))
SENTENCES = SENTENCES.filter(is_text)
SCORES = st.one_of(st.floats(-1e30, 1e30), st.integers(-5, 100).map(float), st.sampled_from([0.0, 2.5]))
TABLES = st.lists(st.tuples(SENTENCES, SENTENCES, SCORES), min_size=1, max_size=8)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])


def delimited(rows, delimiter, ending="\r\n", header=True, quoting=csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ending, quoting=quoting)
    writer.writerows([NAMES] * header + [(one, two, repr(score)) for one, two, score in rows])
    return text.getvalue()


def objects(rows) -> list[dict]:
    return [dict(zip(NAMES, row, strict=True)) for row in rows]


def read(content: bytes | None, name: str, write=None) -> list[tuple[str, str, float]]:
    """The rows of a file of that content; any bad row is a failure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if content is not None:
            path.write_bytes(content)
        else:
            write(path)
        try:
            file = PairFile.open(path)
            assert str(file)
            chunks = list(file.chunks(5))
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017
            raise
    assert [row for chunk in chunks for row in chunk.bad] == []
    return [row for chunk in chunks for row in zip(chunk.sentence1, chunk.sentence2, chunk.label.tolist(), strict=True)]


@pytest.mark.parametrize(
    ("delimiter", "name"), [(",", "p.csv"), ("\t", "p.tsv"), (";", "p.csv"), ("|", "p.txt"), ("\t", "p.txt")]
)
@FEW
@given(
    rows=TABLES,
    encoding=ENCODINGS,
    ending=st.sampled_from(["\r\n", "\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    packed=st.booleans(),
)
def test_delimited(delimiter, name, rows, encoding, ending, quoting, packed):
    # A cell with tabs and line ends may read as several even rows without quoting; which one was meant no reader can know.
    assume(delimiter != "\t" or not any("\t" in text and "\n" in text for row in rows for text in row[:2]))
    content = delimited(rows, delimiter, ending, quoting=quoting).encode(encoding)
    assert read(gzip.compress(content) if packed else content, name + ".gz" * packed) == rows


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@FEW
@given(rows=TABLES, encoding=ENCODINGS)
def test_without_a_header_equal_or_refused(delimiter, rows, encoding):
    assume(delimiter != "\t" or not any("\t" in text and "\n" in text for row in rows for text in row[:2]))  # as above
    others = set("\t;,|^~") - {delimiter}  # where another one cuts the rows as evenly, no reader can know either
    assume(not any(all((row[0] + row[1]).count(other) >= 2 for row in rows) for other in others))
    content = delimited(rows, delimiter, header=False).encode(encoding)
    if rows[0][0].startswith("\ufeff"):
        return  # a byte-order mark at the beginning of a file, or one more, is no text
    try:
        came_back = read(content, "p.csv")
    except InputError as error:
        # Numbers for sentences, say: which columns is not clear.
        assert "--columns" in str(error) or "line " in str(error)  # noqa: PT017
    else:
        assert came_back == rows


@FEW
@given(rows=TABLES)
def test_plain_tab_separated_text(rows):
    """Written without any quoting, as most such files are: what holds no tab and no line end comes back, quotes too."""
    rows = [(one.translate({9: " .", 10: " ."}), two.translate({9: " .", 10: " ."}), score) for one, two, score in rows]
    content = "\n".join("\t".join(map(str, row)) for row in [NAMES, *rows])
    if any('"' in text and not text.startswith('"') for row in rows for text in row[:2]):  # else quotes may enclose
        assert read(content.encode(), "p.tsv") == rows


@FEW
@given(rows=TABLES, encoding=ENCODINGS, escape=st.booleans(), packed=st.booleans())
def test_json_lines_and_json(rows, encoding, escape, packed):
    lines = "\n".join(json.dumps(record, ensure_ascii=escape) for record in objects(rows))
    array = json.dumps(objects(rows), ensure_ascii=escape, indent=1)
    for text, name in ((lines, "p.jsonl"), (lines + "\r\n", "p.json"), (array, "p.json")):
        content = text.encode(encoding)
        assert read(gzip.compress(content) if packed else content, name + ".gz" * packed) == rows


@FEW
@given(rows=TABLES)
def test_parquet(rows):
    assert read(None, "p.parquet", lambda path: parquet.write_table(pyarrow.Table.from_pylist(objects(rows)), path)) == rows


@FEW
@given(rows=TABLES)
def test_excel(rows):
    rows = [(one, two, max(-1e300, min(1e300, score))) for one, two, score in rows]  # openpyxl rounds the largest to infinity

    def write(path):
        book = openpyxl.Workbook()
        for number, row in enumerate([NAMES, *rows], 1):
            for column, value in enumerate(row, 1):
                cell = book.active.cell(number, column)
                cell.value = value
                cell.data_type = "n" if isinstance(value, float) else "s"  # "=1+1" is text here
        book.save(path)

    try:
        came_back = read(None, "p.xlsx", write)
    except openpyxl.utils.exceptions.IllegalCharacterError:
        return  # the form has no control characters
    except InputError as error:
        # XML has neither of the two, and openpyxl writes them nevertheless
        assert "damaged" in str(error)  # noqa: PT017
        assert any(letter in text for row in rows for text in row[:2] for letter in "\ufffe\uffff")
        return
    assert [row[:2] for row in came_back] == [row[:2] for row in rows]
    assert all(math.isclose(back[2], row[2], rel_tol=1e-14, abs_tol=1e-300) for back, row in zip(came_back, rows, strict=True))


CELLS = st.one_of(SENTENCES, SCORES.map(repr), st.sampled_from(["", " ", "nan", "inf", "2,5", "x"]))


@FEW
@given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=5).filter(lambda row: any(map(str.strip, row))), max_size=8))
def test_every_row_arrives_or_is_reported(rows):
    """Ragged rows and bad cells: each row of the file is either among the pairs or among the bad ones, with its line."""
    text = delimited([], ",")
    lines = []
    for row in rows:
        lines.append(1 + text.count("\n"))
        written = io.StringIO(newline="")
        csv.writer(written).writerow(row)
        text += written.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.csv"
        path.write_bytes(text.encode())
        try:
            chunks = list(PairFile.open(path).chunks())
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017
            # Without rows, or where another delimiter cuts ragged ones more evenly.
            assert not rows or any(len(row) != 3 for row in rows)
            return
    bad = {row.line: row for chunk in chunks for row in chunk.bad}
    assert sorted([*bad, *(line for chunk in chunks for line in chunk.line.tolist())]) == lines
    for line, row in zip(lines, rows, strict=True):
        whole = len(row) >= 3 and not any(map(str.strip, row[3:]))  # delimiters at the end of a line change nothing
        if line in bad:
            assert bad[line].cells == row
            assert ("column s" if whole else "columns") in bad[line].what
        else:
            assert whole


LEGACY = [
    (
        "cp1252",
        "cp1252",
        ["Der Mann fährt über die Brücke.", "Die Straße ist gesperrt \u2013 schön für Öffentliche.", "Käse ist süß."],
    ),
    ("cp1252", "cp1252", ["L\u2019élève étudie à l\u2019école.", "Ça coûte 5 €.", "Le café est “très” cher."]),
    ("cp1252", "cp1252", ["The man plays.", "The café is open.", "A dog runs."]),
    ("cp949", "cp949 (euc-kr)", ["한 남자가 기타를 치고 있다.", "고양이가 자고 있다.", "비행기가 이륙하고 있다."]),
    ("euc-kr", "cp949 (euc-kr)", ["한 여성이 양파를 썰고 있다.", "개가 달린다.", "The dog runs."]),
    ("shift-jis", "cp932 (Shift-JIS)", ["男の人がギターを弾いている。", "猫が寝ている。", "飛行機が離陸している。"]),
]


@pytest.mark.parametrize(("encoding", "said", "sentences"), LEGACY)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("before", [0, 30_000])
def test_legacy_encodings(tmp_path, encoding, said, sentences, packed, before):
    """Also where the first letter that is not ASCII stands a megabyte down."""
    rows = [("a man plays a guitar", "a man plays", 2.5)] * before
    rows += [(one, two, float(score)) for score, one in enumerate(sentences) for two in sentences]
    content = delimited(rows, ",").encode(encoding)
    path = tmp_path / ("p.csv.gz" if packed else "p.csv")
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    assert read(path.read_bytes(), path.name) == rows
    assert said in str(PairFile.open(path))


@pytest.mark.parametrize(
    ("encoding", "row"),
    [("shift-jis", ("猫が寝ている。", "犬が走る。", 0.5)), ("cp1252", ("L\u2019élève étudie.", "Ça coûte 5 €.", 3.1))],
)
def test_one_row_in_a_legacy_encoding(encoding, row):
    assert read(delimited([row], ",", header=False).encode(encoding), "p.csv") == [row]


@pytest.mark.parametrize("part", ["train", "dev", "test"])
def test_korean_file_in_its_legacy_encoding(public_data, tmp_path, part):
    text = (public_data / "korsts" / f"sts-{part}.tsv").read_text(encoding="utf-8")
    content = text.encode("cp949", errors="replace")
    assert read(content, "p.tsv") == read(content.decode("cp949").encode(), "p.tsv")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("sentences", [row[2] for row in LEGACY])
def test_utf16_without_bom(encoding, sentences):
    rows = [(one, two, 1.5) for one in sentences for two in sentences]
    assert read(delimited(rows, "\t").encode(encoding), "p.txt") == rows
