"""Reads which rows of two lists are known to be linked, from a file that names them by id or by text."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from connection.data.column_names import LABELS, plain_name
from connection.data.formats.table import TableFile, open_table
from connection.data.label_column import read_column
from connection.data.labels import find_scale
from connection.evaluation.ranking import RELEVANT
from connection.system.csv_output import from_cell
from connection.system.errors import InputError
from connection.system.escapes import printable

CONNECTED = "connected"  # the column of links.csv that says yes or no
Rows = Mapping[str, Sequence[int]]  # id or text -> rows of a list that have it


class KnownLinks(NamedTuple):
    """Pairs of row a of A and row b of B, as numbers a * M + b (M rows in B), int64, ascending."""

    links: np.ndarray
    others: np.ndarray  # known as no links: their label is below the middle of its scale
    unused: list[str]  # which rows of the file are of no use, and why, for messages

    @property
    def pairs(self) -> np.ndarray:
        return np.union1d(self.links, self.others)


NONE_KNOWN = KnownLinks(np.zeros(0, np.int64), np.zeros(0, np.int64), [])


def read_known(paths: Sequence[Path], a: Rows, b: Rows, width: int, labels: tuple[float, float] | None) -> KnownLinks:
    """Returns the known links in files of any form that the data reader takes. width: M, the number of rows of B.

    Of each file, the two columns are taken whose cells name rows of A and of B most often. With a label column, a pair is a
    link from the middle of the label scale on; `labels` is the model's scale. Raises `InputError` for a file that names none.
    """
    found: dict[bool, list[int]] = {True: [], False: []}
    unused: list[str] = []
    for path in paths:
        table = open_table(path)
        numbers, cells, label = _rows(table)
        one, two = _columns(cells, a, b, path)
        gains = _gains(label, labels) if label else np.ones(len(cells))
        for number, row, gain in zip(numbers, cells, gains.tolist(), strict=True):
            pairs = [i * width + j for i in a.get(key(row[one]), ()) for j in b.get(key(row[two]), ())]
            if pairs and math.isfinite(gain):
                found[gain >= RELEVANT] += pairs
            elif number > 1 or table.names is not None:  # a first row that names no pair is a header
                why = "no label" if pairs else "not in the lists"
                unused.append(f"{path.name}, {table.unit} {number}: {row[one]!r:.60} and {row[two]!r:.60}: {why}")
    links, others = (np.unique(np.array(found[kind], np.int64)) for kind in (True, False))
    return KnownLinks(links, np.setdiff1d(others, links), unused)


def named_rows(ids: Sequence[str], texts: Sequence[str]) -> Rows:
    """Returns the rows of a list by id and by text; where an id is also a text, the id counts."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(ids):
        rows[key(name)].append(row)
    by_text: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        by_text[key(text)].append(row)
    return {**by_text, **rows}


def key(cell: str) -> str:
    """Returns a cell as ids and texts are compared: without regard to white space and to what `as_cell` put before it."""
    return " ".join(from_cell(cell).split())


def _rows(table: TableFile) -> tuple[list[int], list[list[str]], list[str]]:
    """Returns the rows' numbers, their cells, all of one width, and the cells of the label column; [] without one."""
    rows = list(table.rows())
    names = table.names
    if names is None and rows and _label_place(rows[0][1]) is not None:
        names = rows.pop(0)[1]
    width = max((len(cells) for _, cells in rows), default=0)
    cells = [[*row, *[""] * (width - len(row))] for _, row in rows]
    place = _label_place(names or [])
    label = [row[place] for row in cells] if place is not None and place < width else []
    return [number for number, _ in rows], cells, label


def _label_place(names: Sequence[str]) -> int | None:
    return next((place for place, name in enumerate(map(plain_name, names)) if name in (*LABELS, CONNECTED)), None)


def _columns(cells: list[list[str]], a: Rows, b: Rows, path: Path) -> tuple[int, int]:
    """Returns the places of the two columns; of equally good ones the first."""
    of_a, of_b = (np.array([[key(cell) in side for cell in row] for row in cells], bool) for side in (a, b))  # (rows, columns)
    width = of_a.shape[1] if len(cells) else 0
    both = {(i, j): int((of_a[:, i] & of_b[:, j]).sum()) for i, j in itertools.permutations(range(width), 2)}
    if not both or not max(both.values()):
        raise InputError(
            f"--known {printable(path)}: no row names a row of each list: it needs a column with the ids "
            "or texts of the one list, and a column with those of the other"
        )
    return max(both, key=lambda places: (both[places], -places[0], -places[1]))


def _gains(label: list[str], labels: tuple[float, float] | None) -> np.ndarray:
    """Returns each label's place on its scale, from 0 (no connection) to 1; NaN for a cell that is no number."""
    column = read_column(label, {}, -np.inf, np.inf, typed=False)
    numbers = np.array([column.number(cell) for cell in label])
    seen = np.unique(numbers[np.isfinite(numbers)])
    low, high = labels or (0.0, 1.0)
    if not len(seen) or (set(seen.tolist()) <= {0, 1} and low < high):
        low, high = 0.0, 1.0
    elif seen[0] < min(low, high) or seen[-1] > max(low, high):
        scale = find_scale(None, None, seen)
        low, high = scale.low, scale.high
    return (numbers - low) / (high - low)
