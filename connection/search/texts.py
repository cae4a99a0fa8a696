"""Reads a list of texts: one column of a file in any form of the data reader, with ids and other columns if it has them."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from connection.data.column_contents import column_kinds
from connection.data.column_names import listed, places_named
from connection.data.formats.delimited import Row
from connection.data.formats.table import TableFile, open_table
from connection.data.header import title_rows
from connection.data.pair_file import file_state, require_state
from connection.data.row_texts import text_problem
from connection.system.csv_output import from_cell, is_guarded
from connection.system.errors import InputError

# Usual names, compared in lower case without spaces, hyphens, underscores, dots and a plural s.
TEXT_NAMES = (
    "text", "sentence", "requirement", "requirementtext", "test", "testcase", "description", "title", "summary", "question",
    "answer", "query", "passage", "document", "content", "body", "name",
)  # fmt: skip
ID_NAMES = (
    "id", "key", "identifier", "number", "no", "nr", "reqid", "requirementid", "testid", "testcaseid", "ref", "reference",
)  # fmt: skip
SAMPLE = 1000  # rows from which columns are recognised
SHOWN = 30  # rows that can't be used, of those that are listed


@dataclasses.dataclass(frozen=True)
class Texts:
    """N texts of one column of a file."""

    texts: list[str]
    rows: list[int]  # the line, or row of a sheet, on which each begins
    ids: list[str] | None  # None without a column of ids
    others: dict[str, list[str]]  # the other columns by name, if they were asked for
    path: Path
    column: str  # name of the texts' column, or its number


@dataclasses.dataclass(frozen=True)
class TextFile:
    """A file with a column of texts, whose rows are read as often as needed, and not kept."""

    path: Path
    table: TableFile
    names: list[str]
    place: int  # of the texts' column
    id_place: int | None
    header_row: int  # number of the row that holds the names; 0 if none does
    state: tuple[int, ...]  # `file_state` of when it was opened

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yields each row's number and its cells, as many as there are names.

        Raises `InputError` that lists the rows without a text, and those that a delimiter in a text has moved, after the last
        row.
        """
        width, wrong, total = len(self.names), list[str](), 0
        for number, row in self.table.rows():
            if number <= self.header_row:
                continue
            cells = row[:width] + [""] * (width - len(row))
            why = text_problem(cells[self.place])
            why = f"column {self.names[self.place]} is {why}" if why else self._too_wide(row)
            if why:
                total += 1
                if len(wrong) < SHOWN:
                    wrong.append(f"{self.table.unit} {number}: {why}")
            elif not total:
                if self.table.is_of_spreadsheets and is_guarded(self.names):
                    cells[self.place] = from_cell(cells[self.place])
                yield number, cells
        if wrong:
            raise InputError.listing(
                f"{self.path}: rows without a text, or with more cells than names; mend or remove them", wrong, total
            )

    def _too_wide(self, row: Sequence[str]) -> str:
        """Returns what is wrong with a row of delimited text that has more cells than there are names; "" if nothing is."""
        if not self.table.delimiter or not any(map(str.strip, row[len(self.names) :])):
            return ""
        hint = ": a comma in a text without quotes?" if self.table.delimiter == "," else ""
        return f"{len(row)} cells, the first row has {len(self.names)}{hint}"

    def texts(self) -> Iterator[str]:
        """Yields the texts. Raises as `rows` does."""
        return (cells[self.place] for _, cells in self.rows())

    def require_unchanged(self) -> None:
        """Raises `InputError` if the file has changed since it was opened."""
        require_state(self.path, self.table.files, self.state)


def open_texts(path: Path, column: str = "", id_column: str = "", flags: tuple[str, str] = ("--column", "--id")) -> TextFile:
    """Open a list. Raises `InputError` for a file without rows, and a column that can't be found.

    column, id_column: names or 1-based numbers; by default those with a usual name, or the only column of text. The names stand
    in the first row of a text file or sheet, or below a title, unless the file has one column without a usual name. Of a text
    file with one column, a line is a text with all delimiters that are in it. flags: what the command calls the two columns.
    """
    table = open_table(path)
    state = file_state(table.files)
    sample = list(itertools.islice(table.rows(), SAMPLE))
    names, header_row = table.names, 0
    if names is None and sample:
        header_row, names = _header(sample, column)
        if names and not (_has_known(names, column) or _is_name(column)) and table.delimiter and _are_lines(sample):
            header_row, names = 0, None
    names = names or ["1"]
    if table.delimiter and len(names) == 1:
        table = _of_lines(table)
    cells = [row[: len(names)] + [""] * (len(names) - len(row)) for number, row in sample if number > header_row]
    if not cells:
        raise InputError(f"{path} has no rows ({table.form})")
    place = _place(path, names, column, "texts", flags[0])
    id_place = _place(path, names, id_column, "ids", flags[1]) if id_column else None
    plain = [_plain(name) for name in names]
    if id_place is None:
        id_place = next((plain.index(name) for name in ID_NAMES if name in plain and plain.index(name) != place), None)
    if place is None:
        place = next((plain.index(name) for name in TEXT_NAMES if name in plain), None)
    if place is None:
        texts = [number for number, kind in enumerate(column_kinds(cells, len(names))) if kind == "text" and number != id_place]
        place = texts[0] if len(texts) == 1 else None
    if place is None:
        raise InputError(f"{path}: which column holds the texts? It has {listed(names)}. Give {flags[0]} NAME or NUMBER")
    return TextFile(path, table, names, place, id_place, header_row, state)


def read_texts(
    path: Path, column: str = "", id_column: str = "", other: bool = False, flags: tuple[str, str] = ("--column", "--id")
) -> Texts:
    """Read a list into memory: see `open_texts`. other: keep other columns.

    Raises `InputError` for rows without text too, and for a file that was changed while it was read.
    """
    file = open_texts(path, column, id_column, flags)
    rows = list(file.rows())
    file.require_unchanged()
    kept = [at for at in range(len(file.names)) if other and at not in (file.place, file.id_place)]
    return Texts(
        [cells[file.place] for _, cells in rows],
        [number for number, _ in rows],
        None if file.id_place is None else [cells[file.id_place].strip() for _, cells in rows],
        {file.names[at]: [cells[at] for _, cells in rows] for at in kept},
        path,
        file.names[file.place],
    )


def _header(sample: list[Row], column: str) -> tuple[int, list[str] | None]:
    """Returns the number of the row that holds the column names, and these; 0 and None where no row does.

    The names have a usual one among them, or the one that is asked for; or they are the first row of several cells.
    """
    place = title_rows([row for _, row in sample], lambda row: _has_known(row, column))
    number, row = sample[place]
    names = [cell.strip() for cell in row]
    return (number, names) if len(names) > 1 or _is_name(column) or _has_known(names, column) else (0, None)


def _is_name(column: str) -> bool:
    """Returns whether a column is asked for by name; one by number may have none."""
    return bool(column) and not column.isdecimal()


def _has_known(names: Sequence[str], column: str) -> bool:
    """Returns whether one of the names is a usual one, or the one that is asked for."""
    wanted = {_plain(column), *TEXT_NAMES} - {""}
    return bool(wanted & {_plain(name.strip()) for name in names})


def _are_lines(sample: list[Row]) -> bool:
    """Returns whether rows of delimited text are texts, some with delimiters in them: most have no same number of cells."""
    widths = Counter(len(row) for _, row in sample)
    return max(count if width > 1 else 0 for width, count in widths.items()) <= len(sample) / 2


def _of_lines(table: TableFile) -> TableFile:
    """Returns a table of delimited text as one of a single column: delimiters are part of the text, but at its end."""

    def rows() -> Iterator[Row]:
        for number, row in table.rows():
            yield number, [table.delimiter.join(row) if any(map(str.strip, row[1:])) else row[0]]

    return dataclasses.replace(table, rows=rows)


def _place(path: Path, names: Sequence[str], asked: str, what: str, flag: str) -> int | None:
    """Returns the place of a column by name or 1-based number; None if none was asked for."""
    if not asked:
        return None
    found = places_named(asked, names, _plain)
    if len(found) != 1:
        many = f"{len(found)} columns are" if found else "no column is"
        raise InputError(f"{path}: {many} named {asked} for the {what}; it has {listed(names)}. Give {flag} NAME or NUMBER")
    return found[0]


def _plain(name: str) -> str:
    plain = re.sub(r"[\s_.-]+", "", name.lower())
    return plain[:-1] if plain.endswith("s") and plain[:-1] in TEXT_NAMES else plain
