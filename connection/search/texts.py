"""Reads a list of texts: one column of a file in any form of the data reader, with ids and other columns if it has them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from connection.data.column_contents import column_kinds
from connection.data.formats.table import open_table
from connection.data.pair_file import text_problem
from connection.system.errors import InputError

# Usual names, compared in lower case without spaces, hyphens, underscores, dots and a plural s.
TEXT_NAMES = (
    "text", "sentence", "requirement", "requirementtext", "test", "testcase", "description", "title", "summary", "question",
    "answer", "query", "passage", "document", "content", "body", "name",
)  # fmt: skip
ID_NAMES = (
    "id",
    "key",
    "identifier",
    "number",
    "no",
    "nr",
    "reqid",
    "requirementid",
    "testid",
    "testcaseid",
    "ref",
    "reference",
)
SHOWN = 30


@dataclasses.dataclass(frozen=True)
class Texts:
    """N texts of one column of a file."""

    texts: list[str]
    rows: list[int]  # the line, or row of a sheet, on which each begins
    ids: list[str] | None  # None without a column of ids
    others: dict[str, list[str]]  # the other columns by name, if they were asked for
    path: Path
    column: str  # name of the texts' column, or its number


def read_texts(path: Path, column: str = "", id_column: str = "", other: bool = False) -> Texts:
    """Read a list. Raises `InputError` for a file without rows, a column that can't be found, and rows without text.

    column, id_column: names or 1-based numbers; by default those with a usual name, or the only column of text. The first row
    of a text file or sheet holds the names, unless the file has one column without a usual name. other: keep other columns.
    """
    table = open_table(path)
    rows = list(table.rows())
    names = table.names
    if names is None and rows:
        first = [cell.strip() for cell in rows[0][1]]
        if len(first) > 1 or column or _plain(first[0]) in TEXT_NAMES:
            names = first
            rows = rows[1:]
    names = names or ["1"]
    if not rows:
        raise InputError(f"{path} has no rows ({table.form})")
    cells = [row[: len(names)] + [""] * (len(names) - len(row)) for _, row in rows]
    place = _place(path, names, column, "texts")
    id_place = _place(path, names, id_column, "ids") if id_column else None
    plain = [_plain(name) for name in names]
    if id_place is None:
        id_place = next((plain.index(name) for name in ID_NAMES if name in plain and plain.index(name) != place), None)
    if place is None:
        place = next((plain.index(name) for name in TEXT_NAMES if name in plain), None)
    if place is None:
        texts = [number for number, kind in enumerate(column_kinds(cells, len(names))) if kind == "text" and number != id_place]
        place = texts[0] if len(texts) == 1 else None
    if place is None:
        raise InputError(f"{path}: which column holds the texts? It has {_listed(names)}: give a name or a number")
    wrong = [f"{table.unit} {number}: column {names[place]} is {why}" for (number, _), row in zip(rows, cells, strict=True)
             if (why := text_problem(row[place]))]  # fmt: skip
    if wrong:
        raise InputError.listing(f"{path}: rows without a text; fill or remove them", wrong)
    others = {name: [row[at] for row in cells] for at, name in enumerate(names) if at not in (place, id_place)} if other else {}
    ids = None if id_place is None else [row[id_place].strip() for row in cells]
    return Texts([row[place] for row in cells], [number for number, _ in rows], ids, others, path, names[place])


def _place(path: Path, names: Sequence[str], asked: str, what: str) -> int | None:
    """Returns the place of a column by name or 1-based number; None if none was asked for."""
    if not asked:
        return None
    found = [place for place, name in enumerate(names) if name == asked]
    found = found or [place for place, name in enumerate(names) if _plain(name) == _plain(asked)]
    if not found and asked.isascii() and asked.isdecimal() and 1 <= int(asked) <= len(names):
        found = [int(asked) - 1]
    if len(found) != 1:
        many = f"{len(found)} columns are" if found else "no column is"
        raise InputError(f"{path}: {many} named {asked} for the {what}; it has {_listed(names)}")
    return found[0]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"{place} {name!r:.40}" for place, name in enumerate(names[:SHOWN], 1)) + more


def _plain(name: str) -> str:
    plain = re.sub(r"[\s_.-]+", "", name.lower())
    return plain[:-1] if plain.endswith("s") and plain[:-1] in TEXT_NAMES else plain
