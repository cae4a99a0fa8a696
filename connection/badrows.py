"""Rows that can't be trained on: counted, the first ones at hand, and all of them in a file of JSON lines."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from connection.findings import LINES_SHOWN
from connection.rowcheck import BadRow


@dataclasses.dataclass(frozen=True)
class BadRows:
    """What is known of the bad rows of a pair file, in memory that does not grow with their number."""

    counts: dict[str, int]  # by finding
    first: list[BadRow]  # the first LINES_SHOWN of each finding in file order, without their cells
    everything: Path | bytes  # a JSON line for each: [line, finding, what, *cells]; bytes of a small file's

    def __len__(self) -> int:
        return sum(self.counts.values())

    def of(self, *findings: str) -> list[BadRow]:
        """The first rows of these findings."""
        return [row for row in self.first if row.finding in findings]

    def rows(self) -> Iterator[list[Any]]:
        """[line, finding, what, *cells] of each, in file order."""
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
        """Counts and first rows for meta.json."""
        return {"counts": self.counts, "first": [list(row) for row in self.first]}
