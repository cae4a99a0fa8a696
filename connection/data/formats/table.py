"""Opens a table file of any supported format. Its rows are text cells, each row with its line or row number."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from connection.data.formats.cells import Rows
from connection.data.formats.delimited import Row, read_delimited
from connection.data.formats.packed import PACKED_ENDINGS, inner_name, open_bytes, packer_of, readable
from connection.data.formats.saved_dataset import SavedDataset, is_saved, open_saved
from connection.data.formats.text_encoding import count_lines, encoding_name, find_encoding, is_guess
from connection.system.errors import InputError

BOOKS = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")
ARROW = (".parquet", ".feather", ".arrow")
JSON = (".jsonl", ".ndjson", ".json")
OLD_EXCEL, PARQUET, ARROW_FILE, ARROW_STREAM, ZIP = b"\xd0\xcf", b"PAR1", b"ARROW1", b"\xff\xff\xff\xff", b"PK\x03\x04"
HEAD = 512  # bytes that tell the form; "ustar" stands 257 bytes into a tar archive
OTHERS = {
    b"%PDF": "a PDF file", b"SQLite format 3": "an SQLite database", b"$FL2": "an SPSS file", b"<stata_dta>": "a Stata file",
    b"RDX": "an R file", b"X\n\0\0": "an R file", b"\x89HDF": "an HDF5 file", b"\x93NUMPY": "a NumPy file",
    b"{\\rtf": "an RTF file",
    b"\x80\x04\x95": "a Python pickle", b"\x80\x05\x95": "a Python pickle", b"Obj\x01": "an Avro file", b"ORC": "an ORC file",
    b"7z\xbc\xaf": "a 7-Zip archive", b"Rar!": "a RAR archive", b"\x28\xb5\x2f\xfd": "packed with Zstandard",
}  # fmt: skip
UTF16 = (b"\xff\xfe", b"\xfe\xff")
MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|meta|table|\?xml)", re.IGNORECASE)
JSON_START = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\{\s*"|\[\s*[\[{])')


@dataclasses.dataclass(frozen=True)
class TableFile:
    """An opened table: its format for the user, column names if the format has them, and its rows."""

    path: Path
    form: str
    unit: str  # what a row number counts: "line" or "row"
    names: list[str] | None  # None: the first row may be a header or data
    rows: Callable[[], Iterator[Row]]  # starts a new pass over all rows, without `names`
    count: int | None = None  # number of rows, if the format records it
    delimiter: str = ""  # of delimited text
    rows_of: Callable[[Sequence[int]], Rows] | None = None  # rows of these columns alone
    sheet: str = ""  # name of a workbook's sheet; cells beside its table are no part of a row
    others: tuple[TableFile, ...] = ()  # the other sheets of a workbook
    parts: tuple[Path, ...] = ()  # the files that `path` consists of, where it is a folder
    head: Callable[[], Iterator[Row]] | None = None  # the first rows, where `rows` would read columns that nobody needs

    @property
    def files(self) -> tuple[Path, ...]:
        """The files whose bytes are read."""
        return self.parts or (self.path,)

    @property
    def is_of_spreadsheets(self) -> bool:
        """Whether spreadsheets write this form, so that a text in it may have been guarded against being computed."""
        return bool(self.delimiter or self.sheet)

    def most_rows(self) -> int | None:
        """Returns an upper bound of the number of rows, for a progress bar; None if finding it takes a pass over all rows."""
        return count_lines(self.path) if self.unit == "line" else self.count

    def only(self, places: Sequence[int]) -> TableFile:
        """Returns the table of these columns alone, where its format can leave out the others; `rows_of` is then set."""
        if self.rows_of is None or self.names is None:
            return self
        return dataclasses.replace(self, names=[self.names[place] for place in places], rows=self.rows_of(places), head=None)


def open_table(path: Path, sheet: str = "") -> TableFile:
    """Opens the table in a CSV, TSV, semicolon- or pipe-separated, JSON, Parquet, Feather, Arrow, Excel or OpenDocument file.

    Text formats may be packed. `sheet` names the one of several sheets, or lists of records, that is read. Raises `InputError`
    if the file is none of these, damaged or empty; `rows()` raises it for damage found later.
    """
    saved = open_saved(path, sheet) if is_saved(path) else None
    with readable(path), open_bytes(saved.files[0] if saved else path) as file:
        magic = file.read(HEAD)
    if saved:
        if not magic.startswith((ARROW_FILE, ARROW_STREAM)):
            raise InputError(f"{saved.files[0]} is a damaged Arrow file, or none. Copy it again.")
        return _arrow(path, magic, saved)
    packer = packer_of(path)
    ending = Path(inner_name(path)).suffix
    if not magic:
        raise InputError(f"{path} is empty")
    is_arrow = magic.startswith((PARQUET, ARROW_FILE, ARROW_STREAM)) or ending in ARROW
    is_book = not is_arrow and (magic.startswith((ZIP, OLD_EXCEL)) or (ending in BOOKS and not _is_text(magic)))
    is_json = not is_arrow and not is_book and (ending in JSON or bool(JSON_START.match(magic)))
    if packer and (is_arrow or is_book):
        raise InputError(f"{path}: only text files may be {'gzipped' if packer == 'gzip' else 'packed'}; unpack it{_how(path)}")
    if not is_arrow and not is_book:
        _require_table(path, magic)
    if sheet and not is_book and not is_json:
        raise InputError(f"{path} has no sheets: --sheet is of workbooks, and of JSON files with several lists of records")
    if is_arrow:
        return _arrow(path, magic)
    if is_book:
        return _workbook(path, ".xls" if magic.startswith(OLD_EXCEL) else ending, sheet)
    encoding = find_encoding(path)
    if is_json:
        from connection.data.formats.json_files import read_json

        found = read_json(path, encoding, ending, sheet)
        form = f"{found.form}, {encoding_name(encoding)}"
        return TableFile(path, form, found.unit, found.names, found.rows, rows_of=found.rows_of)
    form, delimiter, rows = read_delimited(path, encoding, ending)
    if is_guess(encoding):
        form += f" (taken for {encoding}; check the sample rows; save as UTF-8 to be sure)"
    return TableFile(path, form, "line", None, rows, delimiter=delimiter)


def _is_text(head: bytes) -> bool:
    """Returns whether bytes begin a text, in a file whose name says otherwise: web applications name text and HTML .xls."""
    return head.startswith(UTF16) or not re.search(rb"[\0-\x08\x0e-\x1f]", head)


def _require_table(path: Path, head: bytes) -> None:
    """Raises `InputError` for files of other programs, with what to do."""
    what = next((name for start, name in OTHERS.items() if head.startswith(start)), "")
    if not what and head[257:262] == b"ustar":
        what = "a tar archive"
    if what:
        unpacked = "archive" in what or "packed" in what
        raise InputError(f"{path} is {what}: {'unpack it, and give' if unpacked else 'save'} its table as CSV or .xlsx")
    if MARKUP.match(head):
        raise InputError(
            f"{path} is a web page or XML, as some programs save tables under the name .xls: open it in Excel or LibreOffice, "
            "and save it as .xlsx or CSV"
        )


def _arrow(path: Path, magic: bytes, saved: SavedDataset | None = None) -> TableFile:
    from connection.data.formats.arrow import read_arrow

    form, names, head, rows_of, count = read_arrow(path, magic, saved)
    parts = saved.files if saved else ()
    return TableFile(
        path, form, "row", names, lambda: rows_of(range(len(names)))(), count, rows_of=rows_of, parts=parts, head=head
    )


def _how(path: Path) -> str:
    """Returns the command that unpacks a file, where its name has the ending that the command needs."""
    commands = {"gzip": "gunzip -k", "bzip2": "bunzip2 -k", "xz": "unxz -k"}
    command = commands.get(PACKED_ENDINGS.get(path.suffix.lower(), ""), "")
    return f': {command} "{path}"' if command else ""


def _workbook(path: Path, ending: str, asked: str) -> TableFile:
    from connection.data.formats.sheets import read_sheets

    tables = [
        TableFile(path, "; ".join([sheet.form, *sheet.remarks]), "row", None, sheet.rows, sheet=repr(sheet.name))
        for sheet in read_sheets(path, ending, asked)
    ]
    if not tables:
        raise InputError(f"{path} has no sheet with cells")
    return dataclasses.replace(tables[0], others=tuple(tables[1:]))
