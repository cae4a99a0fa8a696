"""A pair file -> a checked table: sentence1, sentence2, score, and the line each row starts on."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from connection.errors import InputError

COLUMNS = ("sentence1", "sentence2", "score")


@dataclasses.dataclass(frozen=True)
class PairTable:
    """N sentence pairs of one file, in file order, every cell checked."""

    path: Path
    sentence1: list[str]
    sentence2: list[str]
    score: np.ndarray  # (N,) float64, on the file's own scale
    line: np.ndarray  # (N,) int64, 1-based line of the file on which the row starts

    def __len__(self) -> int:
        return len(self.sentence1)


def read_pairs(path: Path, label_min: float, label_max: float) -> PairTable:
    """The table in a CSV or TSV file with the columns sentence1, sentence2, score.

    A first row that names the three columns is a header, and other columns beside them are left alone. Without a header the
    file must have exactly three columns, in that order. Comma-separated files follow RFC 4180 (a quoted cell may hold
    commas and line breaks); in tab-separated ones a quote is an ordinary character.

    Raises `InputError` with file, line, column and value of every cell that can't be used.
    """
    rows = _rows(path)
    start, first = next(rows, (0, []))
    if not first:
        raise InputError(f"{path} is empty: it needs rows of {', '.join(COLUMNS)}")
    names = [cell.strip().lower() for cell in first]
    data: Iterable[tuple[int, list[str]]] = rows
    if set(COLUMNS) & set(names):
        problems = [f"line 1: no column {name}" for name in COLUMNS if name not in names]
        problems += [f"line 1: {names.count(name)} columns are named {name}" for name in COLUMNS if names.count(name) > 1]
        if problems:
            problems.append(f"the columns found are {', '.join(first)}")
            raise InputError.listing(f"{path} can't be used:", problems)
        where = [names.index(name) for name in COLUMNS]
    elif len(first) == 3:
        where = [0, 1, 2]
        data = itertools.chain([(start, first)], rows)
    else:
        raise InputError(
            f"{path}, line {start}: no header with the columns {', '.join(COLUMNS)}, and not three columns without one but "
            f"{len(first)}. Give the file a first line that names its columns; they are: {first!r:.200}"
        )
    return _checked_table(path, data, where, len(first), label_min, label_max)


def _checked_table(
    path: Path, rows: Iterable[tuple[int, list[str]]], where: Sequence[int], width: int, label_min: float, label_max: float
) -> PairTable:
    sentences: tuple[list[str], list[str]] = ([], [])
    scores: list[float] = []
    lines: list[int] = []
    problems: list[str] = []
    for line, row in rows:
        if len(row) != width:
            problems.append(f"line {line}: {len(row)} columns where the first line has {width}: {row!r:.80}")
            continue
        for side, column in enumerate(where[:2]):
            sentences[side].append(row[column])
            if not row[column].strip():
                problems.append(f"line {line}, column {COLUMNS[side]}: blank")
        score, problem = _score(row[where[2]], label_min, label_max)
        if problem:
            problems.append(f"line {line}, column score: {problem}")
        scores.append(score)
        lines.append(line)
    if problems:
        raise InputError.listing(f"{path} can't be used; mend or remove these rows:", problems)
    if not scores:
        raise InputError(f"{path} has a header and no rows")
    return PairTable(path, *sentences, np.array(scores, dtype=np.float64), np.array(lines, dtype=np.int64))


def _score(cell: str, label_min: float, label_max: float) -> tuple[float, str]:
    """The cell as a number, and what is wrong with it ('' when nothing is)."""
    try:
        score = float(cell)
    except ValueError:
        return math.nan, f"{cell!r:.60} is not a number" if cell.strip() else "blank"
    if not math.isfinite(score):
        return score, f"{cell!r} is not a finite number"
    if not label_min <= score <= label_max:
        return score, f"{score:g} is outside {label_min:g} to {label_max:g} (--label-min, --label-max)"
    return score, ""


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line on which the row starts, cells) of each row that is not an empty line."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; a file of pairs is needed")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            tabs = path.suffix.lower() == ".tsv" or (path.suffix.lower() != ".csv" and "\t" in file.readline())
            file.seek(0)
            if tabs:
                reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
            else:
                reader = csv.reader(file, strict=True)
            start = 1
            try:
                for row in reader:
                    if row:
                        yield start, row
                    start = reader.line_num + 1
            except csv.Error as error:
                raise InputError(f'{path}, line {start}: {error}. Is a quote (") left open or not doubled?') from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.object[error.start]:#04x}): save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}") from None
