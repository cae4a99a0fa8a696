"""Writes rows of cells, chunk by chunk, as CSV, TSV, JSON Lines, Parquet or an Excel workbook: whole, or not there."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from connection.system.atomic_files import atomic_file
from connection.system.csv_output import BOM, as_cell
from connection.system.errors import InputError

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
MOST_SHEET_ROWS = 1_048_576


class RowFile:
    """A file that is being written. Cells are text, or float or bool in the columns at the end that were added."""

    def __init__(self, names: Sequence[str], added: int):
        self.names, self.added = unique(names), added

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Write what is left to write."""


@contextlib.contextmanager
def new_rows(target: Path, names: Sequence[str], added: int) -> Iterator[RowFile]:
    """Yields a file to write; its form follows from its ending, one of `ENDINGS`. `added` columns at the end are no text.

    Raises `InputError` for another ending, or if an Excel workbook is asked for and openpyxl is missing.
    """
    ending = target.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"{target}: the name should end in {', '.join(ENDINGS)}")
    if ending == ".xlsx":
        require_openpyxl()
    with atomic_file(target) as stream:
        file = {".csv": _Csv, ".tsv": _Tsv, ".jsonl": _JsonLines, ".parquet": _Parquet, ".xlsx": _Workbook}[ending](
            stream, names, added
        )
        yield file
        file.close()


def require_openpyxl() -> None:
    """Raises `InputError` with the command that installs openpyxl, if it is missing."""
    try:
        import openpyxl  # noqa: F401
    except ImportError:
        raise InputError("An Excel workbook needs openpyxl. Type: pip install -r requirements-search.txt") from None


def unique(names: Sequence[str]) -> list[str]:
    """Returns names that differ: those that stand there before get a number."""
    found: list[str] = []
    for name in names:
        number, new = 2, name
        while new in found:
            number, new = number + 1, f"{name} {number}"
        found.append(new)
    return found


class _Csv(RowFile):
    delimiter = ","

    def __init__(self, stream: BinaryIO, names: Sequence[str], added: int):
        super().__init__(names, added)
        self.text = io.TextIOWrapper(stream, BOM, errors="backslashreplace", newline="", write_through=True)
        self.rows = csv.writer(self.text, delimiter=self.delimiter, lineterminator="\r\n")
        self.rows.writerow(map(as_cell, self.names))

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        self.rows.writerows([shown(cell) for cell in row] for row in rows)

    def close(self) -> None:
        self.text.detach()


class _Tsv(_Csv):
    delimiter = "\t"


class _JsonLines(RowFile):
    def __init__(self, stream: BinaryIO, names: Sequence[str], added: int):
        super().__init__(names, added)
        self.stream = stream

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        lines = (json.dumps(dict(zip(self.names, row, strict=True)), ensure_ascii=False, default=float) for row in rows)
        self.stream.write("".join(f"{line}\n" for line in lines).encode("utf-8", errors="backslashreplace"))


class _Parquet(RowFile):
    def __init__(self, stream: BinaryIO, names: Sequence[str], added: int):
        import pyarrow
        from pyarrow import parquet

        super().__init__(names, added)
        self.pyarrow, self.kinds = pyarrow, [pyarrow.string()] * (len(names) - added) + [None] * added
        self.parquet, self.stream = parquet, stream
        self.writer: Any = None

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        columns = list(zip(*rows, strict=True))
        kinds = [kind or self._kind(column) for kind, column in zip(self.kinds, columns, strict=True)]
        arrays = [self.pyarrow.array(map(_whole, column), kind) for column, kind in zip(columns, kinds, strict=True)]
        table = self.pyarrow.Table.from_arrays(arrays, names=self.names)
        if self.writer is None:
            self.kinds = kinds
            self.writer = self.parquet.ParquetWriter(self.stream, table.schema)
        self.writer.write_table(table)

    def _kind(self, column: Sequence[Any]) -> Any:
        text = any(isinstance(cell, str) for cell in column)
        return self.pyarrow.string() if text else self.pyarrow.float64()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class _Workbook(RowFile):
    def __init__(self, stream: BinaryIO, names: Sequence[str], added: int):
        import openpyxl

        super().__init__(names, added)
        self.book = openpyxl.Workbook(write_only=True)
        self.sheet, self.stream, self.count = self.book.create_sheet("scored"), stream, 1
        self.sheet.append([_xml(as_cell(name)) for name in self.names])

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        self.count += len(rows)
        if self.count > MOST_SHEET_ROWS:
            raise InputError(f"A sheet holds {MOST_SHEET_ROWS:,} rows at most: write a .csv or .parquet file")
        for row in rows:
            self.sheet.append([_xml(shown(cell)) for cell in row])

    def close(self) -> None:
        self.book.save(self.stream)


def print_rows(rows: Iterable[Iterable[Any]]) -> None:
    """Print rows as CSV, in which a spreadsheet finds no formula."""
    csv.writer(sys.stdout, lineterminator="\n").writerows(map(shown, row) for row in rows)


def shown(cell: Any) -> Any:
    """Returns a cell as a spreadsheet may hold it: no text is taken for a formula, and an undefined number is empty."""
    return as_cell(cell).replace("\0", "\\x00") if isinstance(cell, str) else "" if cell is None else cell


def _whole(cell: Any) -> Any:
    return cell.encode("utf-8", "backslashreplace").decode() if isinstance(cell, str) else cell


def _xml(cell: Any) -> Any:
    """Returns a text without the control characters that XML can't hold."""
    if not isinstance(cell, str):
        return cell
    return "".join(letter if letter in "\t\n\r" or letter >= " " else f"\\x{ord(letter):02x}" for letter in _whole(cell))
