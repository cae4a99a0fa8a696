"""A table file of any supported form -> its rows as text cells, each with the line or row number it starts on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from connection.data.formats import typed as typedfiles
from connection.data.formats.delimited import Row, read_delimited
from connection.data.formats.text_encoding import (
    count_lines,
    encoding_name,
    find_encoding,
    is_guess,
    open_bytes,
    read_lines,
    readable,
)
from connection.system.errors import InputError


@dataclasses.dataclass(frozen=True)
class TableFile:
    """An opened table: `form` for a person, `names` where the form itself names the columns, and its rows."""

    path: Path
    form: str
    unit: str  # what a row number counts: "line" or "row"
    names: list[str] | None  # None: the first row may be a header or data
    rows: Callable[[], Iterator[Row]]  # a fresh pass over all rows, without `names`
    count: int | None = None  # of the rows, where the form itself tells it
    delimiter: str = ""  # of delimited text

    def most_rows(self) -> int | None:
        """How many rows there can be at most, for a progress bar; None where it would take a pass over all of them."""
        return count_lines(self.path) if self.unit == "line" else self.count


def open_table(path: Path) -> TableFile:
    """The table in a CSV, TSV, semicolon- or pipe-separated, JSON Lines, JSON, Parquet or Excel file.

    Text forms may be gzipped. Raises `InputError` for a file that is none of these, damaged or empty; damage further down
    raises it from `rows()`.
    """
    packed = path.suffix.lower() == ".gz"
    ending = path.with_suffix("").suffix.lower() if packed else path.suffix.lower()
    with readable(path), open_bytes(path) as file:
        magic = file.read(4)
    if not magic:
        raise InputError(f"{path} is empty")
    binary = magic in (b"PAR1", b"PK\x03\x04") or ending in (".parquet", ".xlsx", ".xlsm")
    if binary and packed:
        raise InputError(f"{path}: only text files may be gzipped; unpack it")
    if magic == b"PAR1" or ending == ".parquet":
        names, rows, count = typedfiles.parquet(path)
        return TableFile(path, "Parquet", "row", names, rows, count)
    if magic[:2] == b"\xd0\xcf" or ending == ".xls":
        raise InputError(f"{path} is an old (.xls) or encrypted Excel file: save it as .xlsx or CSV")
    if binary:
        sheet, rows = typedfiles.excel(path)
        return TableFile(path, f"Excel, {sheet}", "row", None, rows)
    encoding = find_encoding(path)
    # Many JSON Lines files are named .json.
    if ending in (".jsonl", ".ndjson") or (ending == ".json" and _first_letter(path, encoding) == "{"):
        names, rows = typedfiles.json_lines(path, encoding)
        return TableFile(path, f"JSON Lines, {encoding_name(encoding)}", "line", names, rows)
    if ending == ".json":
        names, rows = typedfiles.json_array(path, encoding)
        return TableFile(path, f"JSON array, {encoding_name(encoding)}", "row", names, rows)
    form, delimiter, rows = read_delimited(path, encoding, ending)
    if is_guess(encoding):
        form += f" (taken for {encoding}; check the sample rows; save as UTF-8 to be sure)"
    return TableFile(path, form, "line", None, rows, delimiter=delimiter)


def _first_letter(path: Path, encoding: str) -> str:
    return next((line.strip()[0] for line in read_lines(path, encoding) if line.strip()), "")
