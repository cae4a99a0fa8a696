"""Binary workbooks (.xls, .xlsb), written here record by record: what is read of them, and their bounds."""

from __future__ import annotations

import io
import struct
import zipfile

import pytest

from connection.data.formats import binary_sheets
from connection.data.pair_file import PairFile
from connection.system.errors import InputError
from tests.data.test_pair_file import read

NAMES = ["sentence1", "sentence2", "score"]
ROWS = [("a dog", "a män", 1.0), ("예, 네", "a cat", 2.5)]
RELATIONS = "http://schemas.openxmlformats.org/{}/2006/relationships"
END, UNUSED = 0xFFFFFFFE, 0xFFFFFFFF


def relations(kind, target) -> str:
    inner = f'<Relationship Id="r1" Type="{RELATIONS.format("officeDocument")}/{kind}" Target="{target}"/>'
    return f'<Relationships xmlns="{RELATIONS.format("package")}">{inner}</Relationships>'


def in_xlsb(rows, row_numbers=None) -> bytes:
    """row_numbers: of the rows, from 0."""

    def record(kind, body=b"") -> bytes:
        numbers = b""
        for number in (kind, len(body)):
            while number > 127:
                numbers += bytes([number & 127 | 128])
                number >>= 7
            numbers += bytes([number])
        return numbers + body

    def text(value) -> bytes:
        return struct.pack("<I", len(value)) + value.encode("utf-16-le")

    sheet = record(129) + record(148, struct.pack("<4I", 0, len(rows) - 1, 0, 2)) + record(145)
    for number, row in zip(row_numbers or range(len(rows)), rows, strict=True):
        sheet += record(0, struct.pack("<I13x", number))
        for column, value in enumerate(row):
            content = (6, text(value)) if isinstance(value, str) else (5, struct.pack("<d", value))
            sheet += record(content[0], struct.pack("<II", column, 0) + content[1])
    book = record(131) + record(143) + record(156, struct.pack("<II", 0, 1) + text("r1") + text("pairs")) + record(144)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("_rels/.rels", relations("officeDocument", "xl/workbook.bin"))
        archive.writestr("xl/workbook.bin", book + record(132))
        archive.writestr("xl/_rels/workbook.bin.rels", relations("worksheet", "worksheets/sheet1.bin"))
        archive.writestr("xl/worksheets/sheet1.bin", sheet + record(146) + record(130))
    return file.getvalue()


def in_xls(rows, columns=(0, 1, 2), mini=False) -> bytes:
    """columns: the numbers of the columns, from 0. mini: the book is short, and stands in the mini stream."""

    def record(kind, body=b"") -> bytes:
        return struct.pack("<HH", kind, len(body)) + body

    def text(value, length) -> bytes:
        return struct.pack(length, len(value)) + b"\1" + value.encode("utf-16-le")

    def begin(kind) -> bytes:
        return record(0x0809, struct.pack("<HHHHII", 0x600, kind, 0x0DBB, 0x07CC, 0, 6))

    def head(offset) -> bytes:
        return begin(5) + record(0x85, struct.pack("<IH", offset, 0) + text("pairs", "<B")) + record(0x0A)

    stream = head(len(head(0))) + begin(0x10)
    for number, row in enumerate(rows):
        for column, value in zip(columns, row, strict=True):
            place = struct.pack("<HHH", number, column, 0)
            stream += record(0x204, place + text(value, "<H")) if isinstance(value, str) else b""
            stream += b"" if isinstance(value, str) else record(0x203, place + struct.pack("<d", value))
    stream += record(0x0A)
    used = len(stream)
    stream = stream.ljust(max(1024 if mini else 4096, -(-used // 512) * 512), b"\0")
    sectors, first = len(stream) // 512, 3 if mini else 2

    def entry(name, kind, start, size, child=UNUSED) -> bytes:
        letters = name.encode("utf-16-le") + b"\0\0"
        return letters.ljust(64, b"\0") + struct.pack("<HBB3I36xIQ", len(letters), kind, 1, UNUSED, UNUSED, child, start, size)

    chain = [*range(first + 1, first + sectors), END]
    fat = [0xFFFFFFFD, END, *[END] * mini, *chain]
    root = entry("Root Entry", 5, first if mini else END, len(stream) if mini else 0, 1)
    directory = (root + entry("Workbook", 2, 0 if mini else first, used if mini else len(stream))).ljust(512, b"\0")
    minifat = [*range(1, -(-used // 64)), END]
    start = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + struct.pack("<16x5H6x", 0x3E, 3, 0xFFFE, 9, 6)
    start += struct.pack("<10I", 0, 1, 1, 0, 4096, 2 if mini else END, int(mini), END, 0, 0) + b"\xff" * 4 * 108
    tables = [fat] if not mini else [fat, minifat]
    packed = [struct.pack("<128I", *table, *[UNUSED] * (128 - len(table))) for table in tables]
    return start + packed[0] + directory + b"".join(packed[1:]) + stream


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("p.xlsb", in_xlsb([NAMES, *ROWS]), "Excel (.xlsb), sheet 'pairs'"),
        ("p.xls", in_xls([NAMES, *ROWS]), "Excel (.xls), sheet 'pairs'"),
        ("p.xls", in_xls([NAMES, *ROWS], mini=True), "Excel (.xls), sheet 'pairs'"),
    ],
    ids=["xlsb", "xls", "short-xls"],
)
def test_texts_and_labels(tmp_path, name, content, form):
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name) == (ROWS, {}, [2, 3])
    assert form in str(PairFile.open(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content", "size"),
    [
        ("p.xlsb", in_xlsb([NAMES, *ROWS], [0, 1, 4_000_000_000]), "4,000,000,001 rows and 3 columns"),
        ("p.xls", in_xls([NAMES, *ROWS] * 120, (0, 1, 65_535)), "360 rows and 65,536 columns"),
        ("p.xls", in_xls([NAMES], (0, 1, 40_000), mini=True), "1 rows and 40,001 columns"),
    ],
)
def test_a_cell_far_from_the_table_is_refused_before_the_library_makes_room_for_it(tmp_path, monkeypatch, name, content, size):
    monkeypatch.setattr("python_calamine.CalamineWorkbook", None)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"stretches over {size}, more than"):
        PairFile.open(tmp_path / name)


def test_a_file_too_large_to_be_looked_through(tmp_path, monkeypatch):
    monkeypatch.setattr(binary_sheets, "LARGEST_PART", 1000)
    (tmp_path / "p.xls").write_bytes(in_xls([NAMES, *ROWS]))
    with pytest.raises(InputError, match="Save the sheet as CSV"):
        PairFile.open(tmp_path / "p.xls")


def test_sectors_in_a_circle(tmp_path):
    content = bytearray(in_xls([NAMES, *ROWS]))
    content[512 + 4 * 4 : 512 + 4 * 5] = struct.pack("<I", 2)  # sector 4 is followed by the first one of the book
    (tmp_path / "p.xls").write_bytes(content)
    with pytest.raises(InputError, match="in a circle"):
        PairFile.open(tmp_path / "p.xls")


@pytest.mark.parametrize(
    ("name", "content"), [("p.xlsb", in_xlsb([NAMES, *ROWS])), ("p.xls", in_xls([NAMES, *ROWS], mini=True))]
)
def test_any_truncation_and_any_changed_byte(tmp_path, name, content):
    path = tmp_path / name
    for place in range(0, len(content), 23):
        for damaged in (content[:place], content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]):
            path.write_bytes(damaged)
            try:
                read(path)
            except InputError as error:
                assert str(path) in str(error)  # noqa: PT017
