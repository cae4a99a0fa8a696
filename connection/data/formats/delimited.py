"""Delimited text, with whatever delimiter and quoting -> rows of cells, each with the line it starts on."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from connection.data.formats.text_encoding import encoding_name, read_lines
from connection.data.labels import is_label
from connection.system.errors import InputError

Row = tuple[int, list[str]]  # where it starts (line of a text file, row of a sheet), its cells
Quoting = Literal[0, 3]  # csv.QUOTE_MINIMAL: quotes enclose cells; csv.QUOTE_NONE: a quote is an ordinary character
NAMES = {"\t": "tab-separated", "|": "pipe-separated", ";": "semicolon-separated", ",": "comma-separated"}
# The rarest within sentences first: the first of equals is taken.
READINGS: tuple[tuple[str, Quoting], ...] = (("\t", 3), ("\t", 0), ("|", 0), (";", 0), (",", 0))
LONGEST_CELL = 1_000_000  # characters; a longer cell is a quote left open, or no sentence
SAMPLE_ROWS = 200
CELL = r'(?:"[^"]*+(?:""[^"]*+)*+"|[^"\t]*+)'
QUOTED_ROW = re.compile(rf"{CELL}(?:\t{CELL})*+")
SEPARATOR = re.compile(r"sep=([\t|;,])\s*")  # a first line by which spreadsheets are told the delimiter
csv.field_size_limit(LONGEST_CELL)


def read_delimited(path: Path, encoding: str, ending: str) -> tuple[str, str, Callable[[], Iterator[Row]]]:
    """What the form is, for a person, the delimiter, and a function that makes a fresh pass over the rows."""
    sample = list(itertools.islice(read_lines(path, encoding), SAMPLE_ROWS))
    named = SEPARATOR.fullmatch(sample[0]) if sample else None
    delimiter = named[1] if named else _delimiter(sample, ending)
    quoting = _tab_quoting(path, encoding) if delimiter == "\t" else csv.QUOTE_MINIMAL

    def rows() -> Iterator[Row]:
        skipped = 1 if named else 0
        start = 1 + skipped
        lines = itertools.islice(read_lines(path, encoding), skipped, None)
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            for row in reader:
                if any(map(str.strip, row)):  # spreadsheets write an empty row as its delimiters
                    yield start, row
                start = reader.line_num + 1 + skipped
        except csv.Error as error:
            long = "field larger" in str(error)
            why = f"a cell of over {LONGEST_CELL:,} characters" if long else str(error)
            hint = "" if quoting == csv.QUOTE_NONE else '. Is a quote (") left open or not doubled?'
            raise InputError(f"{path}, line {start}: {why}{hint}") from None

    plain = ', a quote (") is an ordinary character' if quoting == csv.QUOTE_NONE else ""
    return f"{NAMES[delimiter]} text, {encoding_name(encoding)}{plain}", delimiter, rows


def _delimiter(sample: list[str], ending: str) -> str:
    """The delimiter that cuts the most rows of the sample into one same number of columns, at least the three that are
    needed; among equals one that leaves a column of labels."""
    best, best_key = ("\t" if ending in (".tsv", ".tab") else ","), (0.0, False)
    for delimiter, quoting in READINGS:
        try:
            rows = [row for row in csv.reader(sample, delimiter=delimiter, quoting=quoting) if any(map(str.strip, row))]
        except csv.Error:
            continue
        widths = Counter(map(len, rows))
        width, count = widths.most_common(1)[0] if rows else (0, 0)
        data = [row for row in rows[1:] if len(row) == width] or rows[:1]  # the first may be a header
        labels = any(2 * sum(map(is_label, column)) > len(data) for column in zip(*data, strict=True))
        if width >= 3 and (count / len(rows), labels) > best_key:
            best, best_key = delimiter, (count / len(rows), labels)
    return best


def _tab_quoting(path: Path, encoding: str) -> Quoting:
    """Whether quotes enclose cells in tab-separated text: only when every cell that holds a quote is properly enclosed, and
    the rows come out more even so or just the same, because most tab-separated files are written without any quoting."""
    record, open_quote, seen = "", False, False  # record: the lines of the row so far, while a quote is open
    plain: Counter[int] = Counter()  # how many rows have how many tabs, read either way
    quoted: Counter[int] = Counter()
    for line in read_lines(path, encoding):
        plain[line.count("\t")] += not line.isspace()
        if not open_quote and '"' not in line:
            quoted[line.count("\t")] += not line.isspace()
            continue
        record += line
        open_quote ^= line.count('"') % 2 == 1
        if open_quote:
            if len(record) > LONGEST_CELL:
                return csv.QUOTE_NONE
            continue
        if not QUOTED_ROW.fullmatch(record.rstrip("\r\n")):
            return csv.QUOTE_NONE
        quoted[re.sub(r'"[^"]*"', "", record).count("\t")] += 1
        record, seen = "", True
    if open_quote or not seen:
        return csv.QUOTE_NONE

    def even(widths: Counter[int]) -> float:
        return max(widths.values()) / widths.total()

    # Where every line is an even row by itself, a quote may stand in one row and the next by chance: no cell spans them.
    return csv.QUOTE_MINIMAL if quoted == plain or even(quoted) > even(plain) else csv.QUOTE_NONE
