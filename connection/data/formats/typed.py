"""Reads files with typed cells (JSON Lines, JSON, Parquet, Excel) as rows of text cells, written as in a text file."""

from __future__ import annotations

import contextlib
import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from connection.data.formats.delimited import SAMPLE_ROWS, Row
from connection.data.formats.text_encoding import read_lines
from connection.system.errors import InputError

LARGEST_ARRAY = 1_000_000_000  # characters
NO_TEXT = "\0"  # first character of a cell that is not text; the reason follows. Real text has no NUL.
Rows = Callable[[], Iterator[Row]]  # starts a new pass over all rows


def cell_text(value: Any) -> str:
    if isinstance(value, str):
        if "\0" in value:
            return NO_TEXT + "text with a NUL character"
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            return NO_TEXT + "text with half a character (a lone surrogate)"
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value != value:
        return NO_TEXT + "nan (no value)"
    if isinstance(value, (list, tuple, dict, bytes)):
        return f"{NO_TEXT}nested or binary ({type(value).__name__})"
    return str(value)


# --- JSON ----------------------------------------------------------------------------------------------------------------


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = next(name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place]))
        raise ValueError(f"the name {twice!r} stands twice in one object")
    return record


def json_lines(path: Path, encoding: str) -> tuple[list[str], Rows]:
    """Returns the column names, and the rows with their line numbers."""

    def records() -> Iterator[tuple[int, Any]]:
        for number, line in enumerate(read_lines(path, encoding), 1):
            if line.strip():
                try:
                    yield number, json.loads(line, object_pairs_hook=_object)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path}, line {number}: not JSON ({error})") from None

    return _records(path, "line", records)


def json_array(path: Path, encoding: str) -> tuple[list[str], Rows]:
    """Returns the column names, and the rows with their places in the array."""
    lines, size = [], 0
    for line in read_lines(path, encoding):
        lines.append(line)
        size += len(line)
        if size > LARGEST_ARRAY:
            raise InputError(
                f"{path}: a JSON array of over {LARGEST_ARRAY:,} characters, which would have to be read as a whole. "
                "Save it as JSON Lines (an object a line, .jsonl), CSV or Parquet"
            )
    try:
        content = json.loads("".join(lines), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error})") from None
    if not isinstance(content, list):
        raise InputError(f"{path} holds no JSON array of objects")
    return _records(path, "row", lambda: iter(enumerate(content, 1)))


def _records(path: Path, unit: str, records: Callable[[], Iterable[tuple[int, Any]]]) -> tuple[list[str], Rows]:
    def objects() -> Iterator[tuple[int, dict[str, Any]]]:
        for number, record in records():
            if not isinstance(record, dict):
                raise InputError(f"{path}, {unit} {number}: not an object with named values")
            yield number, record

    # One object is not enough: some writers leave out empty values.
    names = list(dict.fromkeys(name for _, record in itertools.islice(objects(), SAMPLE_ROWS) for name in record))
    return names, lambda: ((number, [cell_text(record.get(name)) for name in names]) for number, record in objects())


# --- binary formats --------------------------------------------------------------------------------------------------------


def parquet(path: Path) -> tuple[list[str], Rows, int]:
    """Returns the column names, the rows, and the number of rows."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    @contextlib.contextmanager
    def opened() -> Iterator[Any]:
        try:
            with ParquetFile(path) as file:
                yield file
        except (OSError, ValueError, ArrowException) as error:  # ValueError: text that is not UTF-8
            raise InputError(f"{path} is a damaged Parquet file, or none: {error!s:.200}") from None

    def rows() -> Iterator[Row]:
        number = 0
        with opened() as file:
            for batch in file.iter_batches(batch_size=10_000):
                for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield number, [cell_text(cell) for cell in cells]

    with opened() as file:
        return list(file.schema_arrow.names), rows, file.metadata.num_rows


def excel(path: Path) -> tuple[str, Rows]:
    """Returns which sheet is read, and its rows."""
    import openpyxl

    @contextlib.contextmanager
    def opened(**options: bool) -> Iterator[Any]:
        try:
            with open(path, "rb") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about styles and validations that openpyxl ignores
                book = openpyxl.load_workbook(file, read_only=True, **options)
                book.worksheets[0].reset_dimensions()  # some writers record a wrong size
                yield book
        except Exception as error:  # a damaged file can make openpyxl raise anything
            raise InputError(f"{path} is a damaged Excel file (.xlsx), or another archive: {error!s:.200}") from None

    def rows() -> Iterator[Row]:
        width = 0
        with opened(data_only=True) as values, opened() as formulas:  # data_only: a formula's last computed value
            sheets = (book.worksheets[0].iter_rows() for book in (values, formulas))
            for number, cells in enumerate(zip(*sheets, strict=True), 1):
                row = [_excel_cell(*both) for both in zip(*cells, strict=True)]
                while row and not row[-1]:
                    row.pop()
                if row:
                    width = width or len(row)
                    yield number, row + [""] * (width - len(row))

    with opened() as book:
        titles = [repr(sheet.title) for sheet in book.worksheets]
        hidden = " (hidden)" if book.worksheets[0].sheet_state != "visible" else ""
    others = f", the first of {len(titles)}; the others are not read: {', '.join(titles[1:10])}" if len(titles) > 1 else ""
    return f"sheet {titles[0]}{hidden}{others}", rows


def _excel_cell(cell: Any, source: Any) -> str:
    if cell.value is None and source.data_type == "f" and cell.data_type != "str":  # "str": the computed value is empty text
        return NO_TEXT + "a formula without a computed value; open the file in Excel and save it"
    if cell.data_type == "e":
        return f"{NO_TEXT}the Excel error {cell.value}"
    return cell_text(cell.value)
