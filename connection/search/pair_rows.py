"""Reads the rows of a file of sentence pairs that needs no labels, chunk by chunk, with all their cells."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from connection.data.column_contents import column_kinds
from connection.data.column_names import listed, places_named, plain_name, sentence_places, visible
from connection.data.formats.cells import NO_TEXT
from connection.data.formats.table import TableFile, open_table
from connection.data.header import title_rows
from connection.data.pair_file import file_state, require_state
from connection.data.row_texts import text_problem
from connection.system.csv_output import from_cell, is_guarded
from connection.system.errors import InputError

ROWS_AT_ONCE = 20_000
ROLES = ("sentence1", "sentence2")
SAMPLE = 200  # rows by which a column is known for text


@dataclasses.dataclass(frozen=True)
class PairRowChunk:
    """n rows: where each begins in the file, a cell for each name, both sentences, what is wrong ("" where nothing is)."""

    numbers: list[int]
    cells: list[list[str]]
    first: list[str]
    second: list[str]
    wrong: list[str]


@dataclasses.dataclass(frozen=True)
class PairRows:
    """A file of pairs whose two columns of sentences are known."""

    table: TableFile
    names: list[str]
    places: tuple[int, int]
    above: int  # number of rows above the first pair: a title and the names
    state: tuple[int, ...]  # `file_state` of when it was opened

    def chunks(self) -> Iterator[PairRowChunk]:
        """Yields the rows in file order, without the apostrophes that guard formulas in a table for spreadsheets.

        Raises `InputError` after the last row if the file was changed meanwhile.
        """
        rows = itertools.islice(self.table.rows(), self.above, None)
        width, (one, two) = len(self.names), self.places
        while block := list(itertools.islice(rows, ROWS_AT_ONCE)):
            cells = [row[:width] + [""] * (width - len(row)) for _, row in block]
            if self.table.is_of_spreadsheets and is_guarded(self.names):
                cells = [[from_cell(cell) if "'" in cell else cell for cell in row] for row in cells]
            first, second = [row[one] for row in cells], [row[two] for row in cells]
            wrong = [
                f"{self.table.unit} {number}: {why}" if why else ""
                for (number, _), a, b in zip(block, first, second, strict=True)
                for why in [text_problem(a) or text_problem(b)]
            ]
            cells = [[f"({cell[1:]})" if cell.startswith(NO_TEXT) else cell for cell in row] for row in cells]
            yield PairRowChunk([number for number, _ in block], cells, first, second, wrong)
        require_state(self.table.path, self.table.files, self.state)


HOW = "--columns sentence1=NAME,sentence2=NAME (or numbers)"


def open_pairs(path: Path, declared: str = "", how: str = HOW) -> PairRows:
    """Finds the columns of the two sentences: by usual names, in a file of two columns, or as declared.

    declared: "sentence1=NAME,sentence2=NAME", names or 1-based numbers; how: the flags that declare it. Raises `InputError` if
    they can't be found.
    """
    table = open_table(path)
    state = file_state(table.files)
    sample = [cells for _, cells in itertools.islice(table.rows(), SAMPLE)]
    if not sample:
        raise InputError(f"{path} has no rows ({table.form})")
    asked = _parts(declared, path) if declared else []
    title = title_rows(sample, partial(_are_names, asked=asked)) if table.names is None else 0
    sample = sample[title:]
    names = [visible(name).strip() for name in (table.names if table.names is not None else sample[0])]
    plain = [plain_name(name) for name in names]
    if declared:
        places = [_declared(part, names, path) for part in asked]
        header = table.names is None and any(part in names or plain_name(part) in plain for part in asked)
    else:
        rows = sample if table.names is not None else sample[1:] or sample
        texts = [place for place, kind in enumerate(column_kinds(rows, len(names))) if kind == "text"]
        known = sentence_places(plain, texts)
        header = table.names is None and len(known) == 1
        places = list(known[0]) if len(known) == 1 else texts if len(texts) == 2 and len(names) == 2 else []
    if len(set(places)) != 2:
        raise InputError(f"{path}: which columns hold the two sentences? The first row: {listed(names)}. Say which: {how}")
    if not header and table.names is None:
        names = [f"column {place}" for place in range(1, len(names) + 1)]
    return PairRows(table, names, (places[0], places[1]), (title + 1 if header else 0), state)


def _are_names(cells: Sequence[str], asked: Sequence[str]) -> bool:
    plain = [plain_name(visible(cell).strip()) for cell in cells]
    return bool(sentence_places(plain, [])) or any(plain_name(name) in plain for name in asked)


def _parts(declared: str, path: Path) -> list[str]:
    given = {role.strip(): name.strip() for role, _, name in (part.partition("=") for part in declared.split(","))}
    if not all(given.get(role) for role in ROLES):
        raise InputError(f"{path}: --columns {declared:.200}: give sentence1=NAME,sentence2=NAME (or numbers)")
    return [given[role] for role in ROLES]


def _declared(name: str, names: Sequence[str], path: Path) -> int:
    found = places_named(name, names, plain_name)
    if len(found) != 1:
        many = f"{len(found)} columns are" if found else "no column is"
        raise InputError(f"{path}: {many} named {name}; it has {listed(names)}")
    return found[0]
