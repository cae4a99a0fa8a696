"""Reads the sheets of a workbook (.xlsx, .xlsb, .xls, .ods) as rows of text cells, with row numbers as the person sees them."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import functools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from connection.data.formats.binary_sheets import require_small_xls, require_small_xlsb
from connection.data.formats.cells import NO_TEXT, Rows, cell_text
from connection.data.formats.delimited import Row
from connection.data.formats.sheet_parts import SheetDetails, check_parts, filled_rows, ods_details, xlsx_details
from connection.system.errors import InputError

NOT_COMPUTED = NO_TEXT + "a formula without a computed value; open the file in Excel and save it"
SHEETS_NAMED = 9  # in the line on what was read
MOST_TOTALS = 20  # rows
TOTALS = ("total", "totals", "sum", "mean", "average", "median", "count", "grand total", "subtotal", "summe", "gesamt",
          "mittelwert", "durchschnitt", "anzahl", "somme", "moyenne", "suma", "promedio", "合計", "平均", "합계", "평균",
          "总计", "合计", "平均值")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A sheet with a description for the user, its rows, and remarks on what is unusual in it."""

    name: str
    form: str
    rows: Rows  # that are not empty, without the totals at the end
    remarks: list[str]


def read_sheets(path: Path, ending: str, asked: str) -> list[Sheet]:
    """Returns the sheets of a workbook, or the one asked for by its name or number from 1.

    Raises `InputError` for a damaged, locked or too large workbook, or no such sheet.
    """
    kind, details = _details(path, ending)
    with _errors(path, ending):
        from python_calamine import CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

        book = CalamineWorkbook.from_path(path)
        known = [sheet for sheet in book.sheets_metadata if sheet.typ == SheetTypeEnum.WorkSheet]
    names = [sheet.name for sheet in known]
    hidden = {sheet.name for sheet in known if sheet.visible != SheetVisibleEnum.Visible}
    if asked:
        matches = [name for name in names if name == asked] or [name for name in names if name.lower() == asked.lower()]
        if not matches and asked.isdecimal() and 1 <= int(asked) <= len(names):
            matches = [names[int(asked) - 1]]
        if not matches:
            listed = ", ".join(f"{number} {name!r}" for number, name in enumerate(names[:30], 1))
            raise InputError(f"{path} has no sheet {asked!r}; its sheets: {listed}. Give --sheet NAME or number")
        wanted = matches[:1]
    else:
        wanted = names
    return [
        _sheet(path, ending, book, name, _form(kind, names, name, name in hidden), details.get(name) or SheetDetails())
        for name in wanted
    ]


@contextlib.contextmanager
def _errors(path: Path, ending: str) -> Iterator[None]:
    try:
        yield
    except (InputError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of the library is a BaseException
        said = str(error)
        if ending == ".xls" or "password" in said.lower():
            raise InputError(
                f"{path} is an old (.xls) or encrypted Excel file: save it as .xlsx or CSV ({said:.200})"
            ) from None
        name = "OpenDocument sheet (.ods)" if ending == ".ods" else "Excel file (.xlsx)"
        raise InputError(f"{path} is a damaged {name}, or another archive: {said:.200}") from None


def _details(path: Path, ending: str) -> tuple[str, dict[str, SheetDetails]]:
    """Returns the kind of workbook for the user, and the details of its sheets by name, after its parts are checked."""
    with _errors(path, ending):
        check_parts(path)
        if not zipfile.is_zipfile(path):
            if ending == ".xls":
                require_small_xls(path)
            return "Excel (.xls)", {}
        with zipfile.ZipFile(path) as archive:
            names = [name.lower() for name in archive.namelist()]
        if "content.xml" in names:
            return "OpenDocument", ods_details(path)
        if any(name.endswith("xl/workbook.xml") for name in names):
            try:
                return "Excel", xlsx_details(path)
            except expat.ExpatError as error:
                raise InputError(f"{path} is a damaged Excel file (.xlsx), or another archive: {error}") from None
        require_small_xlsb(path)
        return "Excel (.xlsb)", {}


def _form(kind: str, names: list[str], name: str, hidden: bool) -> str:
    others = [repr(other) for other in names if other != name]
    which = "the first" if name == names[0] else f"number {names.index(name) + 1}"
    said = f", {which} of {len(names)}; the others are not read: {', '.join(others[:SHEETS_NAMED])}" if others else ""
    return f"{kind}, sheet {name!r}{' (hidden)' if hidden else ''}{said}"


def _sheet(path: Path, ending: str, book: Any, name: str, form: str, details: SheetDetails) -> Sheet:
    @functools.cache  # a pass takes the library longer than all that is done with the rows
    def loaded() -> list[Row]:
        with _errors(path, ending):
            sheet = book.get_sheet_by_name(name)
            merges = details.merges or [(first[0], last[0], first[1]) for first, last in sheet.merged_cell_ranges or ()]
            return [(number, cells) for number, cells in filled_rows(path, _cells(sheet, details), merges) if any(cells)]

    def rows() -> Iterator[Row]:
        return ((number, _trimmed(cells)) for number, cells in loaded())

    hidden = f"{details.hidden} hidden rows are read too"
    filled = sum(last > first for first, last, _ in details.merges)
    remarks = [hidden] * bool(details.hidden)
    remarks += [f"{filled} merged cells are filled into each of their rows"] * bool(filled)
    return Sheet(name, form, rows, remarks)


def _cells(sheet: Any, details: SheetDetails) -> Iterator[Row]:
    """Yields the cells of the rows of a sheet from its first column on, empty rows left out."""
    special: dict[int, list[tuple[int, str]]] = {}
    for (row, column), error in sorted(details.special.items()):
        special.setdefault(row, []).append((column, f"{NO_TEXT}the Excel error {error}" if error else NOT_COMPUTED))
    start = sheet.start
    number = -1
    for number, values in enumerate(sheet.iter_rows() if start else ()):
        if number in special or values.count("") < len(values):
            yield number + 1, _with_special([""] * start[1] + list(map(_text, values)), special.get(number, ()))
    for rest in special:
        if rest > number:
            yield rest + 1, _with_special([], special[rest])


def _trimmed(cells: list[str]) -> list[str]:
    width = len(cells)
    while width and not cells[width - 1]:
        width -= 1
    return cells[:width]


def _with_special(cells: list[str], special: Any) -> list[str]:
    for column, text in special:
        cells += [""] * (column + 1 - len(cells))
        cells[column] = text
    return cells


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))  # the library has floats alone; a person sees 5
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return f"{value} 00:00:00"
    return cell_text(value)


def totals_below(rows: Iterator[Row], width: int) -> list[int]:
    """Returns the numbers of the rows at the end of a table that hold totals: the word, and fewer cells than the table's
    `width`."""
    totals: list[int] = []
    for number, cells in reversed(collections.deque(rows, MOST_TOTALS)):
        first = next((cell.strip() for cell in cells if cell.strip()), "")
        if first.lower().rstrip(":. ") not in TOTALS or sum(map(bool, cells)) >= width:
            break
        totals.insert(0, number)
    return totals
