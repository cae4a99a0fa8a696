"""The column of a training file that says how often each pair counts: found by its name, and its cells read."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from connection.data.column_contents import MOST
from connection.data.column_names import plain_name
from connection.data.formats.cells import NO_TEXT
from connection.data.labels import COMMA, THOUSANDS, plain_digits

if TYPE_CHECKING:
    from connection.data.columns import Columns

CERTAIN, LIKELY = "sampleweight", "weight"  # in plain form; beside other columns, the second may be that of a parcel
LARGEST_WEIGHT = 1e6


def read_weight(cell: str) -> float:
    """Returns the number in a cell, NaN if there is none. A comma that can't separate thousands is a decimal comma."""
    text = plain_digits(cell)
    if COMMA.fullmatch(text) and not THOUSANDS.fullmatch(text):
        text = text.replace(",", ".")
    with contextlib.suppress(ValueError):
        return float(text) if "_" not in text else math.nan  # Python reads 4_5 as 45
    return math.nan


def weight_problem(cell: str) -> str:
    """Returns why a cell is no weight, "" if it is one."""
    weight = read_weight(cell)
    if 0 <= weight <= LARGEST_WEIGHT:
        return ""
    if not cell.strip():
        return "blank"
    if cell.startswith(NO_TEXT):
        return cell[1:]
    if THOUSANDS.fullmatch(plain_digits(cell)):
        return f"{cell!r:.60} is not clear: write 1000 or 1.0"
    if LARGEST_WEIGHT < weight < math.inf:
        return f"{cell!r:.60} is too large for a weight: {LARGEST_WEIGHT:,.0f} at most"
    if -math.inf < weight < 0:
        return f"{cell!r:.60} is below 0: a pair can't count less than not at all"
    return f"{cell!r:.60} is no weight: write a number from 0 to {LARGEST_WEIGHT:,.0f}"


def with_named_weight(columns: Columns, names: Sequence[str], rows: Sequence[list[str]]) -> Columns:
    """Returns the columns of a file with the one that is named as a weight, if it is one for certain. `how` says so.

    It is if most of its cells are weights, and no other column stands beside it, sentences and label; a name like sample_weight
    is certain beside others too. names: of all columns; rows: of the sample, without the header.
    """
    known = {place: name for place, cell in enumerate(names) if (name := plain_name(cell)) in (CERTAIN, LIKELY)}
    known = {place: name for place, name in known.items() if place not in columns.places}
    if not known:
        return columns
    place, name = next(iter(known.items()))
    written = names[place].strip()
    alone = len(names) == len(columns.places) + 1
    cells = [row[place] for row in rows if place < len(row)]
    good = sum(not weight_problem(cell) for cell in cells)
    if len(known) == 1 and (name == CERTAIN or alone) and good >= MOST * len(cells) > 0:
        how = f"{columns.how}, {written!r} says how often each pair counts"
        return dataclasses.replace(columns, weight=place, weight_name=written, how=how)
    how = f"{columns.how}; {written!r} is left alone: it says how often each pair counts if --columns has weight={written}"
    return dataclasses.replace(columns, how=how)


def without_weight(declared: str) -> str:
    """Returns the value of --columns without `weight=NAME`: pairs that are not trained on need none."""
    return ",".join(item for item in declared.split(",") if item.partition("=")[0].strip() != "weight")
