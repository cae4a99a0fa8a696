"""Finds the row that holds a table's column names: the first one, one below a title, or the one that --header-row gives."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

from connection.data.columns import Columns, find_columns
from connection.data.formats.delimited import SAMPLE_ROWS, Row
from connection.data.formats.sheets import totals_below
from connection.data.formats.table import TableFile
from connection.data.labels import is_label
from connection.data.weight_column import with_named_weight
from connection.system.errors import InputError

LAST_HEADER = 30  # rows that are looked through for the header
LAST_TITLE = 20  # rows of a list, or of pairs without labels, that are looked through for the names
SHOWN = 5  # rows that a message shows, where columns are not found
TITLE_CELLS = 2  # cells of a title or comment; a row of more is a row of the table


def title_rows(rows: Sequence[Sequence[str]], are_names: Callable[[Sequence[str]], bool]) -> int:
    """Returns the number of rows above the column names: a title has fewer cells than these. 0 where no row has names."""
    most = 1
    for number, cells in enumerate(rows[:LAST_TITLE]):
        filled = sum(bool(cell.strip()) for cell in cells)
        if filled > most and are_names(cells):
            return number
        most = max(most, filled)
    return 0


def understand(table: TableFile, declared: str, header_row: int, weighted: bool = False) -> tuple[TableFile, Columns]:
    """Returns the table from its header on, and its columns. Raises `InputError` for no rows, or unclear columns.

    The first sheet of a workbook is taken, or the one other sheet whose columns can be found. weighted: a column of weights is
    looked for too.
    """
    try:
        return _understand(table, declared, header_row, weighted)
    except InputError as error:
        found: list[tuple[TableFile, Columns]] = []
        for other in table.others:
            try:
                found.append(_understand(other, declared, header_row, weighted))
            except InputError:
                continue
        if len(found) == 1:
            return found[0]
        if not table.others:
            raise
        sheets = [other.sheet for other in (table, *table.others)]
        fit = f" ({len(found)} of them have known column names)" if found else ""
        raise InputError(f"{error}\n  - its sheets: {', '.join(sheets[:30])}{fit}: say which: --sheet NAME") from None


def _understand(table: TableFile, declared: str, header_row: int, weighted: bool) -> tuple[TableFile, Columns]:
    if header_row and table.names is not None:
        raise InputError(f"{table.path}: --header-row is of text tables and sheets; {table.form} names its columns by itself")
    if header_row:
        table = _given(table, header_row)
    sample = list(itertools.islice((table.head or table.rows)(), SAMPLE_ROWS))
    if not sample:
        raise InputError(f"{table.path} has no rows ({table.form})")
    whole = sample
    try:
        if table.names is None:
            table, sample = _from_header(table, sample, declared)
        cells = [row for _, row in sample]
        columns = find_columns(table.names, cells, declared, str(table.path))
    except InputError as error:
        if table.names is not None:
            raise
        if not _may_be_title(whole):
            raise
        shown = [f"{table.unit} {number}: {' | '.join(map(_shown, row[:6]))}" for number, row in whole[:SHOWN]]
        way = f"if the names stand further down: --header-row {table.unit.upper()}; its first {table.unit}s:"
        raise InputError("\n".join([str(error), f"  - {way}", *(f"      {line}" for line in shown)])) from None
    if weighted and not declared and (columns.header or table.names is not None):
        columns = with_named_weight(columns, table.names or cells[0], cells[columns.header :])
    if columns.header and len(sample) == 1:
        raise InputError(f"{table.path} has a header and no rows")
    if table.sheet:
        first = table.names or sample[0][1]
        width = max(columns.used) + 1
        while width < len(first) and first[width].strip():  # what stands beyond a blank name is beside the table
            width += 1
        table = _without_totals(_of_width(table, width), sum(map(bool, first[:width])))
        columns = dataclasses.replace(columns, width=width)
    elif table.rows_of is not None:
        table, count = table.only(columns.used), len(columns.places)
        weight = None if columns.weight is None else count
        columns = dataclasses.replace(columns, places=tuple(range(count)), weight=weight, width=len(columns.used))
    return table, columns


def _may_be_title(sample: list[Row]) -> bool:
    filled = [sum(bool(cell.strip()) for cell in cells) for _, cells in sample[:LAST_HEADER]]
    return filled[0] < max(filled)


def _shown(cell: str) -> str:
    return f"{cell.lstrip(chr(0))!r:.30}"


def _given(table: TableFile, header_row: int) -> TableFile:
    numbers = []
    for number, cells in table.rows():
        if number == header_row:
            return _below(table, cells, number, number)
        numbers.append(number)
        if number > header_row:
            break
    unit, near = table.unit, ", ".join(map(str, numbers[-3:])) or "none"
    raise InputError(f"{table.path}: no names in {unit} {header_row} (--header-row); {unit}s with cells near it: {near}")


def _from_header(table: TableFile, sample: list[Row], declared: str) -> tuple[TableFile, list[Row]]:
    """Returns the table below its header where that is not its first row, else as it is, with the sample likewise."""
    for place, (number, cells) in enumerate(sample[:LAST_HEADER]):
        after = sample[place + 1 :]
        if _is_header(cells, after, declared):
            if place == 0:
                break
            return _below(table, cells, number, number), [(n, _cut(row, len(_trimmed(cells)))) for n, row in after]
        both = _combined(cells, after[0][1]) if after else []
        letters = any(len(name) == 1 for name in _trimmed(after[0][1])) if after else False  # A and B: below "Sentence"
        if both and (letters or not _is_header(after[0][1], after[1:], declared)) and _is_header(both, after[1:], declared):
            return _below(table, both, number, after[0][0]), [(n, _cut(row, len(both))) for n, row in after[1:]]
        if sum(bool(cell.strip()) for cell in cells) > TITLE_CELLS and any(map(is_label, cells)):
            break  # a row of data: nothing above a header that stands further down may be left out
    if table.sheet:
        width = len(_trimmed(sample[0][1]))
        return _of_width(table, width), [(n, _cut(row, width)) for n, row in sample]
    return table, sample


def _is_header(cells: Sequence[str], after: list[Row], declared: str) -> bool:
    """Returns whether a row has the names of the three columns, known or declared ones."""
    if any(map(is_label, cells)):
        return False
    try:
        columns = find_columns(list(_trimmed(cells)), [row for _, row in after], declared, "")
    except InputError:
        return False
    return all(cells[place].strip() for place in columns.places) and not (declared and _by_number(declared))


def _by_number(declared: str) -> bool:
    return any(item.rpartition("=")[2].strip().isdecimal() for item in declared.split(","))


def _combined(above: Sequence[str], below: Sequence[str]) -> list[str]:
    """Returns the names in a header of two rows; a cell above stands for the blank ones to its right too."""
    names: list[str] = []
    last = ""
    for one, two in itertools.zip_longest(_trimmed(above), _trimmed(below), fillvalue=""):
        last = one.strip() or (last if two.strip() else "")
        names.append(last if last == two.strip() else f"{last} {two.strip()}".strip())  # equal: one cell merged over both rows
    return names


def _trimmed(cells: Sequence[str]) -> list[str]:
    width = max((place for place, cell in enumerate(cells, 1) if cell.strip()), default=0)
    return [cell.strip() for cell in cells[:width]]


def _cut(cells: list[str], width: int) -> list[str]:
    return [*cells[:width], *[""] * (width - len(cells))]


def _below(table: TableFile, names: list[str], first: int, last: int) -> TableFile:
    """Returns the table below the header in rows `first` to `last`."""
    source = table.rows

    def rows() -> Iterator[Row]:
        return itertools.dropwhile(lambda row: row[0] <= last, source())

    where = f"{table.unit} {last}" if first == last else f"{table.unit}s {first} and {last}"
    names = _trimmed(names)
    below = dataclasses.replace(table, rows=rows, names=names, form=f"{table.form}; header in {where}")
    return _of_width(below, len(names)) if table.sheet else below


def _of_width(table: TableFile, width: int) -> TableFile:
    """Returns the table of a sheet without the cells beside it."""
    source = table.rows

    def rows() -> Iterator[Row]:
        cut = ((number, _cut(cells, width)) for number, cells in source())
        return ((number, cells) for number, cells in cut if any(map(str.strip, cells)))

    return dataclasses.replace(table, rows=rows)


def _without_totals(table: TableFile, width: int) -> TableFile:
    """Returns the table of a sheet without the totals below it; `width` is the number of its columns with a name."""
    source = table.rows
    totals = totals_below(source(), width)
    if not totals:
        return table

    def rows() -> Iterator[Row]:
        return itertools.takewhile(lambda row: row[0] < totals[0], source())

    listed = ", ".join(map(str, totals))
    return dataclasses.replace(table, rows=rows, form=f"{table.form}; not read: totals in row {listed}")
