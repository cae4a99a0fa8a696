"""The rows of a pair file that can't be used, and what is odd about others: kept in memory that does not grow with them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from connection.data.findings import LINES_SHOWN


class BadRow(NamedTuple):
    """A row that can't be used for training."""

    line: int
    finding: str  # the finding's name: "ragged-row", "blank-text", "bad-label", "unclear-label", "bad-weight"
    what: str  # column and value, for messages
    cells: list[str]


class Remark(NamedTuple):
    """What is odd about a row that is used, or left out for certain."""

    line: int
    finding: str  # the finding's name: "swallowed-rows", "mojibake", "repeated-header", "line-end-code"
    text: str  # an example, or ""


@dataclasses.dataclass(frozen=True)
class BadRows:
    """Summary of the bad rows of a pair file. Its memory does not grow with their number."""

    counts: dict[str, int]  # number of rows by finding
    first: list[BadRow]  # the first LINES_SHOWN of each finding in file order, without their cells
    everything: Path | bytes  # one JSON line per row: [line, finding, what, *cells]; bytes if the pair file is small

    def __len__(self) -> int:
        return sum(self.counts.values())

    def of(self, *findings: str) -> list[BadRow]:
        """Returns the first rows of these findings."""
        return [row for row in self.first if row.finding in findings]

    def rows(self) -> Iterator[list[Any]]:
        """Yields [line, finding, what, *cells] of each bad row, in file order."""
        if isinstance(self.everything, bytes):
            yield from map(json.loads, self.everything.splitlines())
            return
        with open(self.everything, encoding="ascii") as file:
            yield from map(json.loads, file)


class BadRowsWriter:
    """Writes bad rows to a binary file as they are found."""

    def __init__(self, file: IO[bytes]):
        self.file = file
        self.counts: Counter[str] = Counter()
        self.first: list[BadRow] = []

    def add(self, rows: Iterable[BadRow]) -> None:
        for row in rows:
            self.counts[row.finding] += 1
            if self.counts[row.finding] <= LINES_SHOWN:
                self.first.append(row._replace(cells=[]))
            self.file.write(json.dumps([row.line, row.finding, row.what, *row.cells]).encode() + b"\n")

    def summary(self) -> dict[str, Any]:
        """Returns counts and first rows for meta.json."""
        return {"counts": self.counts, "first": [list(row) for row in self.first]}
