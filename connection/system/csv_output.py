"""CSV files for a person's spreadsheet: whole or not there, and no text in them is taken for a formula."""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connection.system.atomic_files import atomic_file

if TYPE_CHECKING:
    import pandas as pd

BOM = "utf-8-sig"  # Excel takes other text for the system's own encoding
# What a spreadsheet would compute instead of show, with the full-width forms of = + - @ (OWASP, CSV Injection); and texts that
# look like one with an apostrophe before it.
FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
# Where the list separator is a semicolon (most of Europe) or a tab, a cell begins after each of them, whatever quotes stand
# around the text: the quote that opens it is not at the beginning of such a cell. So it does after a line break.
INNER_FORMULA = re.compile(r"""([;\t\r\n])(?=["']*[=+\-@\uff1d\uff0b\uff0d\uff20])""")
PUT_BEFORE = re.compile(rf"""^'(?={FORMULA.pattern})|(?<=[;\t\r\n])'(?=["']*[=+\-@\uff1d\uff0b\uff0d\uff20])""")
# Columns that only this project's files have, whatever a spreadsheet makes of them.
WRITTEN_HERE = {"predicted", "cosine", "residual", "finding", "mined_negative_1"}


def as_cell(text: str) -> str:
    """Returns a text as a spreadsheet may hold it: an apostrophe goes before each part that it would take for a formula.

    `from_cell` takes them away again.
    """
    text = INNER_FORMULA.sub(r"\1'", text)
    return "'" + text if FORMULA.match(text) else text


def from_cell(cell: str) -> str:
    """Returns the text of which `as_cell` made a cell."""
    return PUT_BEFORE.sub("", cell)


def is_guarded(names: Iterable[str]) -> bool:
    """Returns whether texts of a spreadsheet's table with these columns went through `as_cell`: this project wrote it."""
    return not WRITTEN_HERE.isdisjoint(names)


class CsvOutput:
    """A CSV file that is being written: rows, or pandas tables of the same columns, one after the other."""

    def __init__(self, stream: io.TextIOWrapper):
        self.stream, self.writer, self.header = stream, csv.writer(stream, lineterminator="\r\n"), True

    def rows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write rows of texts and numbers."""
        self.writer.writerows([_shown(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)

    def table(self, table: pd.DataFrame) -> None:
        """Write a table; the first one with its header."""
        text = {name: [_shown(cell) for cell in table[name]] for name in table if table[name].dtype.kind not in "biuf"}
        table.assign(**text).to_csv(self.stream, index=False, header=self.header, lineterminator="\r\n")
        self.header = False


def _shown(text: str) -> str:
    """Returns the cell of a text; a NUL, which no reader of CSV takes, as an escape."""
    return as_cell(text.replace("\0", r"\x00"))


@contextlib.contextmanager
def new_csv(file: Path, encoding: str = BOM) -> Iterator[CsvOutput]:
    """Yields a new CSV file in place of an earlier one; see `atomic_file`. Lone surrogates are written as escapes."""
    with atomic_file(file) as raw:
        stream = io.TextIOWrapper(raw, encoding, errors="backslashreplace", newline="")
        try:
            yield CsvOutput(stream)
        finally:
            stream.detach()
