"""Reads a pair file in chunks of checked rows: sentence1, sentence2, label, and the line on which each row starts."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from connection.data.columns import Columns
from connection.data.findings import LARGEST
from connection.data.formats.cells import NO_TEXT
from connection.data.formats.delimited import SAMPLE_ROWS
from connection.data.formats.packed import readable
from connection.data.formats.table import TableFile, open_table
from connection.data.header import understand
from connection.data.labels import COMMA, THOUSANDS, parse_label
from connection.system.errors import InputError
from connection.system.escapes import printable

UNSEEN = {"Cc", "Cf", "Co", "Zs", "Zl", "Zp", "Mn", "Me"}  # invisible Unicode categories: alone, they give no token
FILLERS = "\u115f\u1160\u3164\uffa0\u2800\u1734\ufffd"  # Hangul fillers, blank Braille pattern, replacement character


DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[ T][0-9]{2}:[0-9]{2}:[0-9]{2})?")


class BadRow(NamedTuple):
    """A row that can't be used for training."""

    line: int
    finding: str  # the finding's name: "ragged-row", "blank-text", "bad-label"
    what: str  # column and value, for messages
    cells: list[str]


def is_text(cell: str) -> bool:
    """Returns whether a cell has more than white space, controls, zero-width characters, lone accents and fillers."""
    return not cell.startswith(NO_TEXT) and any(
        unicodedata.category(letter) not in UNSEEN and letter not in FILLERS for letter in cell
    )


def text_problem(cell: str) -> str:
    if cell.startswith(NO_TEXT):
        return cell[1:]
    return "" if is_text(cell) else "nothing but invisible characters" if cell.strip() else "blank"


def label_problem(cell: str) -> str:
    if not cell.strip():
        return "blank"
    if cell.startswith(NO_TEXT):
        return cell[1:]
    if COMMA.fullmatch(cell.strip()):
        return f"{cell!r:.60} is not clear: a decimal comma counts only if no label has a point and one can't mean thousands"
    if LARGEST < abs(parse_label(cell)) < math.inf:
        return f"{cell!r:.60} is too large for a label: {LARGEST:g} at most"
    if DATE.fullmatch(cell.strip()):
        return f"{cell.strip()!r} is a date: spreadsheets take a typed 1.5 for one. Format the column as text and type it again"
    if parse_label(cell) in (0, 1):
        return f"{cell!r:.60} is not clear among numbers other than 0 and 1"
    finite = "finite " if math.isinf(parse_label(cell)) or cell.strip().lower().lstrip("+-") == "nan" else ""
    return f"{cell!r:.60} is not a {finite}number"


def holds_rows(text: str, delimiter: str, width: int) -> bool:
    """Returns whether two or more lines of a cell have a whole row's delimiters: a quote is open above and closed below."""
    return bool(delimiter) and sum(line.count(delimiter) == width - 1 for line in text.split("\n")) >= 2


def shorten(text: str, longest: int = 60) -> str:
    """Returns a cell in quotes for a sample row, with "..." if it was cut; of one that is no text, what it is."""
    if text.startswith(NO_TEXT):
        return f"({text[1:]})"
    return repr(text) if len(text) <= longest else f"{text[: longest - 3]!r}..."


ROWS_AT_ONCE, CHARACTERS_AT_ONCE = 50_000, 16 << 20  # limits of a chunk, which bound the memory of its text
ROWS_A_LOOK = 32  # rows read between two checks of the number of characters


@dataclasses.dataclass(frozen=True)
class PairChunk:
    """n good rows in file order, and the bad rows between them."""

    sentence1: list[str]
    sentence2: list[str]
    label: np.ndarray  # (n,) float64, finite, on the file's own scale
    line: np.ndarray  # (n,) int64, 1-based line (or sheet row) on which the row starts
    bad: list[BadRow]
    swallowed: list[int]  # lines of good rows with a cell that seems to contain other rows

    def __len__(self) -> int:
        return len(self.sentence1)


@dataclasses.dataclass(frozen=True)
class PairFile:
    """A pair file with known format and columns. Its rows are read in chunks, as often as needed."""

    path: Path
    table: TableFile
    columns: Columns
    state: tuple[int, ...]  # `_state` before the first read

    @classmethod
    def open(cls, path: Path, declared_columns: str = "", sheet: str = "", header_row: int = 0) -> PairFile:
        """Opens a file and finds its columns. Raises `InputError` for an unsupported format, no rows, or unclear columns.

        sheet: the name or number of a workbook's sheet, "" to find it; header_row: the row of the column names, 0 to find it.
        """
        state = _state(path)
        table, columns = understand(open_table(path, sheet), declared_columns, header_row)
        return cls(path, table, columns, state)

    def require_unchanged(self) -> None:
        """Raises `InputError` if the file has changed since it was opened."""
        if _state(self.path) != self.state:
            raise InputError(f"{self.path} was changed while it was read: start again when it is complete")

    def __str__(self) -> str:
        """Returns format, columns and three sample rows, for the user."""
        names = ", ".join(
            f"{role} = {name!r}" for role, name in zip(("sentence1", "sentence2", "label"), self.columns.names, strict=True)
        )
        place = self.columns.places[2]
        head = list(itertools.islice(self._data(), SAMPLE_ROWS))
        comma = any(COMMA.fullmatch(cells[place].strip()) for _, cells in head if place < len(cells)) and self.decimal_comma
        how = self.columns.how + (", labels have a decimal comma" if comma else "")
        lines = [f"{printable(self.path)}: {printable(self.table.form)}; {names} ({printable(how)})"]
        for line, cells in head[:3]:
            one, two, label = (cells[place] if place < len(cells) else "" for place in self.columns.places)
            lines.append(f"    {self.table.unit} {line}: {shorten(one)} | {shorten(two)} | {shorten(label, 20)}")
        return "\n".join(lines)

    @functools.cached_property
    def decimal_comma(self) -> bool:
        """Whether the file's labels have decimal commas: some commas can't mean thousands, and no label has a point."""
        sure = False
        for _, cells in self._data():
            cell = cells[self.columns.places[2]].strip() if len(cells) == self.columns.width else ""
            if "." in cell and math.isfinite(parse_label(cell)):
                return False
            sure = sure or bool(COMMA.fullmatch(cell) and not THOUSANDS.fullmatch(cell))
        return sure

    @functools.cached_property
    def numbers_beyond_0_1(self) -> bool:
        """Whether the file has numeric labels other than 0 and 1: words such as yes are then bad labels."""
        place, width = self.columns.places[2], self.columns.width
        labels = (parse_label(cells[place], self.decimal_comma) for _, cells in self._data() if len(cells) == width)
        return any(math.isfinite(label) and label not in (0, 1) for label in labels)

    def chunks(self, size: int = ROWS_AT_ONCE, low: float = -math.inf, high: float = math.inf) -> Iterator[PairChunk]:
        """Yields all rows in chunks of `size` rows, or fewer if rows are long. Labels outside low..high are bad.

        Raises `InputError` if the file is damaged.
        """
        rows = self._data()
        try:
            while block := _block(rows, size):
                yield self._checked(block, low, high)
        except UnicodeDecodeError:  # a damaged file is refused when it is opened: this one was replaced since
            self.require_unchanged()
            raise

    def _data(self) -> Iterator[tuple[int, list[str]]]:
        rows = self.table.rows()
        return itertools.islice(rows, 1, None) if self.columns.header else rows

    def _checked(self, block: list[tuple[int, list[str]]], low: float, high: float) -> PairChunk:
        first, second, third = self.columns.places
        width, names = self.columns.width, self.columns.names
        sentence1, sentence2, labels, lines, bad, swallowed = [], [], [], [], [], []
        for line, cells in block:
            if len(cells) != width:
                bad.append(BadRow(line, "ragged-row", f"{len(cells)} columns, the first row has {width}", cells))
                continue
            one, two = cells[first], cells[second]
            label = parse_label(cells[third])
            if "," in cells[third] and COMMA.fullmatch(cells[third].strip()):
                label = parse_label(cells[third], self.decimal_comma)
            if label in (0, 1) and cells[third].strip()[0].isalpha() and self.numbers_beyond_0_1:
                label = math.nan
            # Nearly all texts begin with a letter: only the others need a check of each character.
            if not (one[:1].isalnum() and two[:1].isalnum() and one[0] not in FILLERS and two[0] not in FILLERS) and not (
                is_text(one) and is_text(two)
            ):
                wrong = [f"column {name}: {why}" for name, text in zip(names, (one, two), strict=False)
                         if (why := text_problem(text))]  # fmt: skip
                bad.append(BadRow(line, "blank-text", "; ".join(wrong), cells))
            elif not -LARGEST <= label <= LARGEST:  # also true for NaN
                bad.append(BadRow(line, "bad-label", f"column {names[2]}: {label_problem(cells[third])}", cells))
            elif not low <= label <= high:
                what = f"column {names[2]}: {cells[third].strip()} is outside the label scale {low:g} to {high:g}"
                bad.append(BadRow(line, "bad-label", what, cells))
            else:
                sentence1.append(one)
                sentence2.append(two)
                labels.append(label)
                lines.append(line)
                if "\n" in one or "\n" in two:
                    swallowed += [line] * holds_rows(one + "\n" + two, self.table.delimiter, width)
        return PairChunk(sentence1, sentence2, np.array(labels, np.float64), np.array(lines, np.int64), bad, swallowed)


def _state(path: Path) -> tuple[int, ...]:
    """Returns what tells a file's content from another: size, times and inode. The last two can't be set as one likes."""
    with readable(path):
        found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _block(rows: Iterator[tuple[int, list[str]]], size: int) -> list[tuple[int, list[str]]]:
    """Returns the next rows: `size` rows or about CHARACTERS_AT_ONCE characters."""
    block: list[tuple[int, list[str]]] = []
    room = CHARACTERS_AT_ONCE
    while room > 0 and (piece := list(itertools.islice(rows, min(ROWS_A_LOOK, size - len(block))))):
        room -= sum([sum(map(len, cells)) for _, cells in piece])
        block += piece
    return block
