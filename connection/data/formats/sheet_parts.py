"""Looks through a workbook before a library reads it: how large its parts are, how far its sheets stretch, and what the library
does not say (formulas never computed, error values, hidden rows, merged cells)."""

from __future__ import annotations

import dataclasses
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

from connection.data.formats.delimited import Row
from connection.system.errors import InputError

LARGEST_PART, LARGEST_PARTS = 512 << 20, 1 << 30  # bytes of one part, and of all, unpacked
LONGEST_TEXT = 4 << 20  # bytes between two tags; a cell of Excel holds 32,767 characters
MOST_ROWS, MOST_SHEET_COLUMNS = 1_048_576, 16_384  # of Excel
MOST_MERGES = 1000  # merged cells that cover one row
MOST_CELLS = 20_000_000  # rows times columns that a sheet stretches over: the library keeps each, empty or not
READ = (".xml", ".rels", ".bin")  # parts that the library reads; pictures are left alone
BLOCK = 1 << 20
REFERENCE = re.compile(r"([A-Z]{1,7})([0-9]{1,20})")
Scan = Callable[[str, dict[str, str]], None]


@dataclasses.dataclass
class SheetDetails:
    """What the library does not say of a sheet. Rows and columns count from 0."""

    special: dict[tuple[int, int], str] = dataclasses.field(default_factory=dict)  # cell: "" (never computed), or an error
    hidden: int = 0  # rows
    merges: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)  # first row, last row, first column
    low: list[int] = dataclasses.field(default_factory=lambda: [MOST_ROWS, MOST_SHEET_COLUMNS])
    high: list[int] = dataclasses.field(default_factory=lambda: [-1, -1])

    def stretch(self, row: int, column: int) -> None:
        self.low = [min(self.low[0], row), min(self.low[1], column)]
        self.high = [max(self.high[0], row), max(self.high[1], column)]

    def require_small(self, path: Path, name: str) -> None:
        """Raises `InputError` for a sheet that the library would need too much memory for."""
        rows, columns = (high - low + 1 for low, high in zip(self.low, self.high, strict=True))
        beyond = self.high[0] >= MOST_ROWS or self.high[1] >= MOST_SHEET_COLUMNS
        if beyond or (rows > 0 and rows * columns > MOST_CELLS):
            raise InputError(
                f"{path}: sheet {name!r} stretches over {rows:,} rows and {columns:,} columns, more than {MOST_CELLS:,} cells: "
                "something stands far from the table. Copy the table into a new workbook, or save the sheet as CSV"
            )


def check_parts(path: Path) -> None:
    """Raises `InputError` for a zip archive whose parts unpack to more than the bounds. Other files pass.

    Each part is unpacked: a size in the archive's directory may be false. `zipfile.BadZipFile` is raised for damage.
    """
    if not zipfile.is_zipfile(path):
        return
    total = 0
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len({entry.filename for entry in entries}) < len(entries):
            raise InputError(f"{path} holds two parts of one name: open the file in Excel and save it")
        for entry in entries:
            if not entry.filename.lower().endswith(READ):
                continue
            total += entry.file_size
            if entry.file_size > LARGEST_PART or total > LARGEST_PARTS:
                size = f"{LARGEST_PART >> 20} MiB, or with the others to over {LARGEST_PARTS >> 20}"
                raise InputError(f"{path}: its part {entry.filename!r} unpacks to over {size} MiB. Save the sheet as CSV")
            with archive.open(entry) as part:
                _require_short_texts(path, entry.filename, part)


def _require_short_texts(path: Path, name: str, part: IO[bytes]) -> None:
    since = 0
    binary = name.endswith(".bin")
    while block := part.read(BLOCK):
        pieces = block.split(b"<")
        since = since + len(block) if len(pieces) == 1 else len(pieces[-1])
        if since > LONGEST_TEXT and not binary:
            raise InputError(f"{path}: its part {name!r} holds a text of over {LONGEST_TEXT >> 20} MiB, which is no sentence")


def xlsx_details(path: Path) -> dict[str, SheetDetails]:
    """Returns the details of each sheet of an .xlsx file, by its name. Raises `InputError` for a sheet that is too large."""
    with zipfile.ZipFile(path) as archive:
        sheets: list[tuple[str, str]] = []
        targets: dict[str, str] = {}

        def of_book(tag: str, attributes: dict[str, str]) -> None:
            if tag == "sheet":
                number = next((value for name, value in attributes.items() if name.rpartition(":")[2] == "id"), "")
                sheets.append((attributes.get("name", ""), number))

        def of_relations(tag: str, attributes: dict[str, str]) -> None:
            if tag == "Relationship":
                targets[attributes.get("Id", "")] = attributes.get("Target", "")

        book = next((name for name in archive.namelist() if name.lower().endswith("xl/workbook.xml")), "xl/workbook.xml")
        folder, file = posixpath.split(book)
        _scan(archive, book, of_book)
        _scan(archive, f"{folder}/_rels/{file}.rels", of_relations)
        found = {}
        for name, number in sheets:
            target = posixpath.normpath(posixpath.join("/" + folder, targets.get(number, ""))).lstrip("/")
            part = next((entry for entry in archive.namelist() if entry.lower() == target.lower()), None)
            if part:
                found[name] = _sheet_details(archive, part)
                found[name].require_small(path, name)
    return found


def _scan(archive: zipfile.ZipFile, part: str, start: Scan, **handlers: Any) -> None:
    """Calls `start` with the name, without prefix, and the attributes of each tag of a part."""
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, attributes: start(tag.rpartition(":")[2], attributes)
    for name, handler in handlers.items():
        setattr(parser, name, handler)
    with archive.open(part) as file:
        parser.ParseFile(file)


def _sheet_details(archive: zipfile.ZipFile, part: str) -> SheetDetails:
    details = SheetDetails()
    row, column, kind = -1, -1, ""
    formula = inside = False
    text: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal row, column, kind, formula, inside
        if tag == "row":
            row, column = int(attributes.get("r", row + 2)) - 1, -1
            details.hidden += attributes.get("hidden") in ("1", "true")
        elif tag == "c":
            formula = inside = False
            place = REFERENCE.fullmatch(attributes.get("r", ""))
            row, column = (int(place[2]) - 1, _number(place[1])) if place else (row, column + 1)
            kind = attributes.get("t", "")
        elif tag in ("v", "is"):
            details.stretch(row, column)
            inside = tag == "v" and (formula or kind == "e")
            text.clear()
        elif tag == "f":
            details.stretch(row, column)
            formula = True
        elif tag == "mergeCell":
            ends = [REFERENCE.fullmatch(end) for end in attributes.get("ref", "").split(":")]
            if len(ends) == 2 and ends[0] and ends[1]:
                details.merges.append((int(ends[0][2]) - 1, int(ends[1][2]) - 1, _number(ends[0][1])))

    def end(tag: str) -> None:
        nonlocal inside
        if tag.rpartition(":")[2] == "c" and (formula or kind == "e"):
            value = "".join(text)
            if kind == "e":
                details.special[row, column] = value
            elif not value and kind != "str":  # "str": the computed value is empty text
                details.special[row, column] = ""
            text.clear()
            inside = False

    def characters(data: str) -> None:
        if inside:
            text.append(data)

    _scan(archive, part, start, EndElementHandler=end, CharacterDataHandler=characters)
    return details


def _number(letters: str) -> int:
    """Returns the number of a column: 0 of A, 26 of AA."""
    number = 0
    for letter in letters:
        number = 26 * number + ord(letter) - 64
    return number - 1


def ods_details(path: Path) -> dict[str, SheetDetails]:
    """Returns the details of each sheet of an .ods file, by its name. Raises `InputError` for a sheet that is too large."""
    found: dict[str, SheetDetails] = {}
    row = column = 0
    across = down = 1  # cells and rows that the current ones stand for
    name = ""

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal row, column, across, down, name
        attributes = {key.rpartition(":")[2]: value for key, value in attributes.items()}
        if tag == "table":
            name = attributes.get("name", "")
            found[name] = SheetDetails()
            row, down = 0, 0
        elif tag == "table-row":
            row += down
            down = int(attributes.get("number-rows-repeated", 1))
            column, across = 0, 0
            if name in found:
                found[name].hidden += down * (attributes.get("visibility") in ("collapse", "filter"))
        elif tag in ("table-cell", "covered-table-cell") and name in found:
            column += across
            across = int(attributes.get("number-columns-repeated", 1))
            if "value-type" in attributes:
                found[name].stretch(row, column)
                found[name].stretch(row + down - 1, column + across - 1)
                last = row + int(attributes.get("number-rows-spanned", 1)) - 1
                if last > row:
                    found[name].merges.append((row, last, column))

    with zipfile.ZipFile(path) as archive:
        _scan(archive, "content.xml", start)
    for sheet, details in found.items():
        details.require_small(path, sheet)
    return found


def filled_rows(path: Path, rows: Iterator[Row], merges: list[tuple[int, int, int]]) -> Iterator[Row]:
    """Yields rows of cells with the text of a merged cell in each row that the merge covers.

    merges: first row, last row and column of each, from 0.
    """
    waiting = sorted((merge for merge in merges if merge[1] > merge[0]), reverse=True)
    covering: list[tuple[int, int, str]] = []  # last row, column, text
    for number, cells in rows:
        covering = [merge for merge in covering if merge[0] >= number - 1]
        for _, column, text in covering:
            cells += [""] * (column + 1 - len(cells))
            cells[column] = cells[column] or text
        while waiting and waiting[-1][0] < number:
            first, last, column = waiting.pop()
            if first == number - 1 and column < len(cells):
                covering.append((last, column, cells[column]))
        if len(covering) > MOST_MERGES:
            raise InputError(f"{path}, row {number}: over {MOST_MERGES:,} merged cells cover it. Save the sheet as CSV")
        yield number, cells
