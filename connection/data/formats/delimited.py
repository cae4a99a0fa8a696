"""Finds the delimiter and quoting of delimited text, and reads its rows of cells, each with the line on which it starts."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from connection.data.formats.quote_style import QuoteStyle, find_style
from connection.data.formats.text_encoding import encoding_name, read_lines
from connection.data.labels import is_label
from connection.system.errors import InputError

Row = tuple[int, list[str]]  # first line of the row (text file) or row number (sheet), cells
Quoting = Literal[0, 3]  # csv.QUOTE_MINIMAL: quotes enclose cells; csv.QUOTE_NONE: a quote is an ordinary character
NAMES = {"\t": "tab-separated", "|": "pipe-separated", ";": "semicolon-separated", ",": "comma-separated"}
# Delimiters that are rare in sentences come first: of equally good readings the first is taken.
READINGS: tuple[tuple[str, Quoting], ...] = (
    ("\t", 3), ("\t", 0), ("|", 0), (";", 0), (",", 0), ("\x01", 3), ("\x1f", 3), ("^", 0), ("~", 0), (" ", 0),
)  # fmt: skip
# Those that may cut a file into two columns, where none cuts it into more; a comma does without them, and stands in sentences.
IN_TWO: tuple[tuple[str, Quoting], ...] = (("\t", 3), ("|", 0), (";", 0))
# Delimiters of several characters: behind a tab that seems to be the delimiter, and where no delimiter of one cuts the lines.
WITH_TAB, LONG = (";\t", ",\t"), (":::", "::", "@@@", "###", "<sep>", "[SEP]", "=>", "->")
CUT = "\x1f"  # stands in their place
LONGEST_CELL = 1_000_000  # characters; a longer cell has an unclosed quote or is no sentence
SAMPLE_ROWS = 200
CELL = r'(?:"[^"]*+(?:""[^"]*+)*+"|[^"\t]*+)'
QUOTED_ROW = re.compile(rf"{CELL}(?:\t{CELL})*+")
SEPARATOR = re.compile(r"sep=([\t|;,])\s*")  # a first line that tells spreadsheets the delimiter
RULE = re.compile(r"[\s:+=-]*--[\s:+=-]*")  # below the names of a table in Markdown, or of a database's console
ENCLOSED = re.compile(r'\s*"((?:[^"]|"")+)"\s*')
END = "\x1a"  # of a file of old programs
csv.field_size_limit(LONGEST_CELL)


def read_delimited(path: Path, encoding: str, ending: str) -> tuple[str, str, Callable[[], Iterator[Row]]]:
    """Returns a description of the format for the user, the delimiter, and a function that starts a new pass over the rows."""
    sample = list(itertools.islice(read_lines(path, encoding), SAMPLE_ROWS))
    enclosed = all(ENCLOSED.fullmatch(line) for line in sample) and any("," in line for line in sample)
    if enclosed:
        sample = list(map(_bare, sample))
    named = SEPARATOR.fullmatch(sample[0]) if sample else None
    skipped = 1 if named else 0
    delimiter = named[1] if named else _delimiter(sample, ending)
    quoting: Quoting = _tab_quoting(path, encoding) if delimiter == "\t" else csv.QUOTE_MINIMAL
    shown, long = delimiter, re.compile(rf" *{re.escape(delimiter)} *") if len(delimiter) > 1 else None
    if long:
        delimiter, sample = CUT, [long.sub(CUT, line) for line in sample]
        quoting = csv.QUOTE_MINIMAL if all(f'"{CUT}' in line for line in sample[1:]) else csv.QUOTE_NONE

    def lines() -> Iterator[str]:
        rest: Iterator[str] = itertools.islice(read_lines(path, encoding), skipped, None)
        rest = map(_bare, rest) if enclosed else rest
        return (long.sub(CUT, line) for line in rest) if long else rest

    style = find_style(lines, sample[skipped:], delimiter) if quoting == csv.QUOTE_MINIMAL else QuoteStyle()

    def rows() -> Iterator[Row]:
        start = 1 + skipped
        reader = style.reader(lines(), delimiter, quoting)
        try:
            for row in reader:
                rule = delimiter == "|" and RULE.fullmatch("".join(row))
                if (
                    not rule and row != [END] and any(map(str.strip, row))
                ):  # spreadsheets write an empty row as delimiters alone
                    yield start, row
                start = reader.line_num + 1 + skipped
        except csv.Error as error:
            long = "field larger" in str(error)
            why = f"a cell of over {LONGEST_CELL:,} characters" if long else str(error)
            hint = "" if quoting == csv.QUOTE_NONE else '. Is a quote (") left open or not doubled?'
            raise InputError(f"{path}, line {start}: {why}{hint}") from None

    whole = ", each line in quotes" if enclosed else ""
    plain = ', a quote (") is an ordinary character' if quoting == csv.QUOTE_NONE else str(style)
    return (
        f"{NAMES.get(shown) or f'{shown!r}-separated'} text, {encoding_name(encoding)}{plain}{whole}",
        delimiter,
        rows,
    )


def _bare(line: str) -> str:
    """Returns a line that is one cell in quotes as it was before: spreadsheets save text so that stood in one column."""
    found = ENCLOSED.fullmatch(line)
    return found[1].replace('""', '"') + "\n" if found else line


def _delimiter(sample: list[str], ending: str) -> str:
    """Returns the delimiter that splits the most sample rows into the same number of columns, at least 3; or one of several
    characters that stands equally often in each; or one that splits the first row and most others in two.

    Among equals it prefers one that yields a column of labels. Hive writes \\x01, R's write.table spaces and quotes.
    """
    best, best_key = ("\t" if ending in (".tsv", ".tab") else ","), (0.0, False)
    quoted = all('"' in line for line in sample if not line.isspace())
    for delimiter, quoting in READINGS:
        if delimiter == " " and not quoted:  # R encloses each text
            continue
        rows = _cut(sample, delimiter, quoting)
        widths = Counter(map(len, rows))
        width, count = widths.most_common(1)[0] if rows else (0, 0)
        data = [row for row in rows[1:] if len(row) == width] or rows[:1]  # the first row may be a header
        labels = any(2 * sum(map(is_label, column)) > len(data) for column in zip(*data, strict=True))
        if width >= 3 and (count / len(rows), labels) > best_key:
            best, best_key = delimiter, (count / len(rows), labels)
    lines = [line for line in sample if not line.isspace()]
    for long in WITH_TAB if best == "\t" and best_key[0] else LONG if best_key[0] <= 0.5 else ():
        counts = {line.count(long) for line in lines}
        alone = best != "\t" or counts == {line.count("\t") for line in lines}
        if len(lines) > 1 and len(counts) == 1 and min(counts) >= 2 and alone:
            return long
    if best_key[0] <= 0.5:
        for delimiter, quoting in IN_TWO:
            widths_of = [len(row) for row in _cut(sample, delimiter, quoting)]
            if widths_of[:1] == [2] and 2 * widths_of.count(2) > len(widths_of):
                return delimiter
    return best


def _cut(sample: list[str], delimiter: str, quoting: Quoting) -> list[list[str]]:
    """Returns the rows that a delimiter makes of sample lines, without blank ones; none if it can't be that one."""
    try:
        style = QuoteStyle() if quoting == csv.QUOTE_NONE else find_style(lambda: iter(sample), sample, delimiter)
        return [row for row in style.reader(sample, delimiter, quoting, False) if any(map(str.strip, row))]
    except csv.Error:
        return []


def _tab_quoting(path: Path, encoding: str) -> Quoting:
    """Returns how to read quotes in tab-separated text. They enclose cells only if every cell with a quote is properly enclosed
    and row lengths become more even or stay the same: most tab-separated files are written without quoting.
    """
    record, open_quote, seen = "", False, False  # record: the lines of the row so far, while a quote is open
    plain: Counter[int] = Counter()  # number of rows by number of tabs; `quoted`: if quotes enclose cells
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

    # If every line alone is a complete row, quotes in successive rows match by chance: no cell spans these rows.
    return csv.QUOTE_MINIMAL if quoted == plain or even(quoted) > even(plain) else csv.QUOTE_NONE
