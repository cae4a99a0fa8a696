"""Opens a table file of any supported format. Its rows are text cells, each row with its line or row number."""

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
    """An opened table: its format for the user, column names if the format has them, and its rows."""

    path: Path
    form: str
    unit: str  # what a row number counts: "line" or "row"
    names: list[str] | None  # None: the first row may be a header or data
    rows: Callable[[], Iterator[Row]]  # starts a new pass over all rows, without `names`
    count: int | None = None  # number of rows, if the format records it
    delimiter: str = ""  # of delimited text

    def most_rows(self) -> int | None:
        """Returns an upper bound of the number of rows, for a progress bar; None if finding it takes a pass over all rows."""
        return count_lines(self.path) if self.unit == "line" else self.count


def open_table(path: Path) -> TableFile:
    """Opens the table in a CSV, TSV, semicolon- or pipe-separated, JSON Lines, JSON, Parquet or Excel file.

    Text formats may be gzipped. Raises `InputError` if the file is none of these, damaged or empty; `rows()` raises it for
    damage found later.
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
