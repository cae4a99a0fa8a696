"""Finds out how delimited text quotes its cells, where it is not the usual way: double quotes right after the delimiter."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

ESCAPED = re.compile(r'\\\\(?=\\*")|\\"')  # a backslash before another one and a quote, or before a quote


@dataclasses.dataclass(frozen=True)
class QuoteStyle:
    """How cells are quoted."""

    quote: str = '"'
    spaces: bool = False  # a space between delimiter and quote
    backslash: bool = False  # a quote in a cell has a backslash before it, as Spark writes it, instead of being doubled

    def reader(self, lines: Iterable[str], delimiter: str, quoting: Any, strict: bool = True) -> Any:
        """Returns the csv reader of the lines."""
        if self.backslash:
            lines = (ESCAPED.sub(lambda found: "\\" if found[0] == "\\\\" else '""', line) for line in lines)
        return csv.reader(
            lines, delimiter=delimiter, quoting=quoting, quotechar=self.quote, skipinitialspace=self.spaces, strict=strict
        )

    def __str__(self) -> str:
        """Returns what is unusual, for the user, each after a comma."""
        said = {", a single quote (') encloses cells": self.quote == "'", ", a space before quotes": self.spaces}
        return "".join(text for text, true in (said | {', quotes are written \\"': self.backslash}).items() if true)


def find_style(lines: Callable[[], Iterator[str]], sample: list[str], delimiter: str) -> QuoteStyle:
    """Returns the style of quotes. lines: starts a new pass over all lines, of which `sample` has the first.

    Another style than the usual one is taken only if the sample shows it and the whole file can be read so.
    """
    text = "".join(sample)
    mark = re.escape(delimiter)
    spaces = False
    if '"' in text:
        quoted = re.sub(rf'(^|{mark})"(?:[^"]|"")*"(?={mark}|$)', r"\1", text, flags=re.MULTILINE)
        spaces = bool(re.search(rf'(^|{mark}) +"', quoted, flags=re.MULTILINE)) and _reads(
            lines(), QuoteStyle(spaces=True), delimiter
        )
    elif _all_single_quoted(sample, delimiter) and _reads(lines(), QuoteStyle("'"), delimiter):
        return QuoteStyle("'")
    style = QuoteStyle(spaces=spaces)
    escaped = QuoteStyle(spaces=spaces, backslash=True)
    if any('\\"' in line for line in lines()) and not _reads(lines(), style, delimiter) and _reads(lines(), escaped, delimiter):
        return escaped
    return style


def _all_single_quoted(sample: list[str], delimiter: str) -> bool:
    """Returns whether each line but the first has at least two cells in single quotes."""
    mark = re.escape(delimiter)
    cell = re.compile(rf"(?:^|(?<={mark}))'[^\r\n]*?'(?={mark}|\s*$)")
    lines = [line.rstrip("\r\n") for line in sample[1:] if line.strip()]
    return bool(lines) and all(len(cell.findall(line)) >= 2 for line in lines)


def _reads(lines: Iterator[str], style: QuoteStyle, delimiter: str) -> bool:
    try:
        for _ in style.reader(lines, delimiter, csv.QUOTE_MINIMAL):
            pass
    except csv.Error:
        return False
    return True
