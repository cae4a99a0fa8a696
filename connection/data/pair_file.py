"""Reads a pair file in chunks of checked rows: sentence1, sentence2, label, and the line on which each row starts."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ftfy.badness import is_bad

from connection.data.bad_rows import BadRow, Remark
from connection.data.columns import Columns
from connection.data.findings import LARGEST
from connection.data.formats.delimited import SAMPLE_ROWS
from connection.data.formats.packed import readable
from connection.data.formats.saved_dataset import is_saved, open_saved
from connection.data.formats.table import TableFile, open_table
from connection.data.header import understand
from connection.data.label_column import LabelColumn, Ratings, certain_number, read_columns, read_ratings
from connection.data.label_words import parse_label_map
from connection.data.labels import NO_LABELS, LabelScale, find_scale
from connection.data.row_shape import RowShape
from connection.data.row_texts import FILLERS, holds_rows, is_text, shorten, text_problem, too_many_marks
from connection.data.unlabelled import pairs_of_row
from connection.data.weight_column import read_weight, weight_problem, without_weight
from connection.system.csv_output import from_cell
from connection.system.errors import InputError
from connection.system.escapes import printable

LINE_END = re.compile("(?:_x000[9AD]_)+")  # of Excel's own files, in a table that was made from one


ROWS_AT_ONCE, CHARACTERS_AT_ONCE = 50_000, 16 << 20  # limits of a chunk, which bound the memory of its text
ROWS_A_LOOK = 32  # rows read between two checks of the number of characters


@dataclasses.dataclass(frozen=True)
class PairChunk:
    """n good rows in file order, and the bad rows between them."""

    sentence1: list[str]
    sentence2: list[str]
    label: np.ndarray  # (n,) float64, finite, on the file's own scale
    line: np.ndarray  # (n,) int64, 1-based line (or sheet row) on which the row starts
    bad: list[BadRow]
    remarks: list[Remark]
    ratings: np.ndarray | None = None  # (n, k) float64, of k annotators, whose mean is the label; NaN where one has none
    weight: np.ndarray | None = None  # (n,) float64, how often each pair counts in training; None: each once

    def __len__(self) -> int:
        return len(self.sentence1)

    @property
    def written(self) -> np.ndarray:
        """The labels as they stand in the file, (m,) float64: with several annotators, those of each."""
        return self.label if self.ratings is None else self.ratings[~np.isnan(self.ratings)]


@dataclasses.dataclass(frozen=True)
class PairFile:
    """A pair file with known format and columns. Its rows are read in chunks, as often as needed."""

    path: Path
    table: TableFile
    columns: Columns
    state: tuple[int, ...]  # `file_state` before the first read
    label_map: str = ""

    @classmethod
    def open(
        cls,
        path: Path,
        declared_columns: str = "",
        sheet: str = "",
        header_row: int = 0,
        label_map: str = "",
        weighted: bool = False,
    ) -> PairFile:
        """Opens a file and finds its columns. Raises `InputError` for an unsupported format, no rows, or unclear columns.

        sheet: the name or number of a workbook's sheet, "" to find it; header_row: the row of the column names, 0 to find it;
        label_map: the numbers of label words, such as "low=0,high=1"; weighted: the pairs are trained on, so that a column of
        weights counts; in any other file it is left alone, even if it is declared.
        """
        state = file_state(open_saved(path, sheet).files if is_saved(path) else (path,))
        declared_columns = declared_columns if weighted else without_weight(declared_columns)
        table, columns = understand(open_table(path, sheet), declared_columns, header_row, weighted)
        return cls(path, table, columns, state, label_map)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files whose bytes are read: the pair file, or those in a folder of a saved dataset."""
        return self.table.files

    def without_labels(self) -> PairFile:
        """Returns the file with its labels left aside, whatever stands in them; a label tells no longer where cells belong."""
        if not self.columns.labelled:
            return self
        places, names = self.columns.places[:2], self.columns.names[:2]
        return dataclasses.replace(self, columns=dataclasses.replace(self.columns, places=places, names=names, labelled=False))

    def require_unchanged(self) -> None:
        """Raises `InputError` if the file has changed since it was opened."""
        require_state(self.path, self.files, self.state)

    def unlabelled_scale(self, low: float | None, high: float | None) -> LabelScale | None:
        """Returns the scale of a file without labels, 0 to 1; None for one with labels.

        low, high: as declared. Raises `InputError` if an end is declared, and there are no labels.
        """
        if self.columns.labelled:
            return None
        if (low, high) != (None, None):
            raise InputError(f"--label-min and --label-max: {self.path} has no labels")
        return LabelScale(0, 1, self.columns.kind, NO_LABELS)

    def find_scale(
        self, low: float | None, high: float | None, written: Sequence[float], labels: Sequence[float]
    ) -> LabelScale:
        """Returns the label scale: that of a file without labels, or see `connection.data.labels.find_scale`.

        low, high: as declared; written: the distinct labels as they stand in the file, ascending; labels: those of its pairs.
        """
        if unlabelled := self.unlabelled_scale(low, high):
            return unlabelled
        mapped = parse_label_map(self.label_map).values()
        try:
            return find_scale(low, high, written, means=labels, mapped=mapped)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None

    def __str__(self) -> str:
        """Returns format, columns and three sample rows, for the user."""
        weight = self.columns.weight is not None
        roles = (*self.columns.roles, *["weight"] * weight)
        written_names = (*self.columns.names, *[self.columns.weight_name] * weight)
        names = ", ".join(f"{role} = {name!r}" for role, name in zip(roles, written_names, strict=True))
        head = list(itertools.islice(self._data(), SAMPLE_ROWS))
        places = self.columns.places[2:] if self.columns.labelled else ()
        labels = [cells[place] for _, cells in head for place in places if place < len(cells)]
        read = self._label_columns(-math.inf, math.inf) if any(map(self._needs_column, labels)) else ()
        written = "; ".join(dict.fromkeys(filter(None, map(str, read))))
        how = self.columns.how + (f", {written}" if written else "")
        lines = [f"{printable(self.path)}: {printable(self.table.form)}; {names} ({printable(how)})"]
        for line, cells in head[:3]:
            shown = [cells[place] if place < len(cells) else "" for place in self.columns.used]
            cut = [shorten(cell, 20 if role in ("label", "weight") else 60) for role, cell in zip(roles, shown, strict=True)]
            lines.append(f"    {self.table.unit} {line}: {' | '.join(cut)}")
        return "\n".join(lines)

    @functools.cached_property
    def shape(self) -> RowShape:
        return RowShape(self.columns, self.table.delimiter, self.columns.header or self.table.names is not None)

    def _needs_column(self, cell: str) -> bool:
        return bool(cell.strip()) and math.isnan(certain_number(cell, not self.table.delimiter))

    @functools.cached_property
    def _known_label_columns(self) -> dict[tuple[float, float], list[LabelColumn]]:
        return {}

    def _label_columns(self, low: float, high: float) -> list[LabelColumn]:
        """Returns how each label column is written, if labels are on the scale low..high. Takes a pass over the file."""
        if (low, high) not in self._known_label_columns:
            places = self.columns.places[2:]
            rows = (cells for _, row in self._data() if (cells := self.shape.fitted(row)) is not None)
            written = ([row[place] for place in places] for row in rows if not self.shape.is_header(row))
            given, typed = parse_label_map(self.label_map), not self.table.delimiter
            self._known_label_columns[low, high] = read_columns(written, len(places), given, low, high, typed)
        return self._known_label_columns[low, high]

    def _label_column(self, low: float, high: float) -> LabelColumn:
        return self._label_columns(low, high)[0]

    def _ratings(self, cells: Sequence[str], low: float, high: float) -> Ratings:
        """Returns the labels of a row's annotators; `cells` are those of the label columns."""
        return read_ratings(cells, self._label_columns(low, high), self.columns.annotators, low, high)

    def chunks(self, size: int = ROWS_AT_ONCE, low: float = -math.inf, high: float = math.inf) -> Iterator[PairChunk]:
        """Yields all rows in chunks of `size` rows, or fewer if rows are long. Labels outside the scale low..high are bad.

        Raises `InputError` if the file is damaged.
        """
        low, high = min(low, high), max(low, high)  # a reversed scale has its low end above
        rows = self._data()
        try:
            while block := _block(rows, size):
                yield self._checked(block, low, high) if self.columns.labelled else self._paired(block, low, high)
        except UnicodeDecodeError:  # a damaged file is refused when it is opened: this one was replaced since
            self.require_unchanged()
            raise

    def _data(self) -> Iterator[tuple[int, list[str]]]:
        rows = self.table.rows()
        return itertools.islice(rows, 1, None) if self.columns.header else rows

    def _paired(self, block: list[tuple[int, list[str]]], low: float, high: float) -> PairChunk:
        """Checks rows without labels, as the labelled pairs that they stand for. Of a bad row, no pair is used."""
        pairs, bad, remarks = list[tuple[int, list[str]]](), list[BadRow](), list[Remark]()
        places, names, width = self.columns.places, self.columns.names, self.columns.width
        for line, row in block:
            cells = self.shape.fitted(row)
            if cells is None:
                what = f"{len(row)} columns, the first row has {width}{self.shape.ragged_because(row)}"
                bad.append(BadRow(line, "ragged-row", what, row))
                continue
            if self.shape.is_header(cells):
                remarks.append(Remark(line, "repeated-header", ""))
                continue
            texts = [cells[place] for place in places]
            fewer = any(map(str.strip, texts[2:]))  # there is a negative, and others may be blank
            wrong = [f"column {name}: {why}" for place, (name, text) in enumerate(zip(names, texts, strict=True))
                     if not (fewer and place > 1 and not text.strip()) and (why := text_problem(text))]  # fmt: skip
            weights = [cells[place] for place in self.columns.used[len(places) :]]  # one, or none
            if wrong:
                bad.append(BadRow(line, "blank-text", "; ".join(wrong), cells))
            elif why := "".join(map(weight_problem, weights)):
                bad.append(BadRow(line, "bad-weight", f"column {self.columns.weight_name}: {why}", cells))
            else:
                pairs += [(line, pair + weights) for pair in pairs_of_row(texts)]
        as_pairs = dataclasses.replace(
            self.columns,
            places=(0, 1, 2),
            names=("", "", ""),
            width=len(self.columns.used) - len(places) + 3,
            labelled=True,
            weight=None if self.columns.weight is None else 3,
        )
        chunk = dataclasses.replace(self, columns=as_pairs)._checked(pairs, low, high)
        return dataclasses.replace(chunk, bad=bad, remarks=sorted([*chunk.remarks, *remarks]))

    def _checked(self, block: list[tuple[int, list[str]]], low: float, high: float) -> PairChunk:
        first, second, third = self.columns.places[:3]
        width, names = self.columns.width, self.columns.names
        sentence1, sentence2, labels, lines, bad, remarks = [], [], [], [], [], list[Remark]()
        known: dict[str | tuple[str, ...], float] = {}
        several = self.columns.places[2:] if self.columns.annotators else ()
        ratings, rated = list[list[float]](), dict[str | tuple[str, ...], Ratings]()
        weight, weights = self.columns.weight, list[float]()
        typed, guarded = not self.table.delimiter, self.table.is_of_spreadsheets and self.columns.written_here
        for line, row in block:
            cells = row if len(row) == width else self.shape.fitted(row)
            if cells is None:
                what = f"{len(row)} columns, the first row has {width}{self.shape.ragged_because(row)}"
                bad.append(BadRow(line, "ragged-row", what, row))
                continue
            one, two, written = cells[first], cells[second], cells[third]
            key = written if not several else tuple([cells[place] for place in several])
            if guarded and ("'" in one or "'" in two):
                one, two = from_cell(one), from_cell(two)
            if ("_x000" in one or "_x000" in two) and LINE_END.search(one + two):
                one, two = (LINE_END.sub(" ", text) for text in (one, two))
                remarks.append(Remark(line, "line-end-code", ""))
            label = known.get(key)
            if (label is None or math.isnan(label)) and self.shape.is_header(cells):
                remarks.append(Remark(line, "repeated-header", ""))
                continue
            if label is None and several:
                rated[key] = self._ratings(key, low, high)
                label = known[key] = rated[key].mean
            elif label is None:
                label = certain_number(written, typed)
                if self.label_map or self._needs_column(written):
                    label = self._label_column(low, high).number(written)
                known[written] = label
            # Nearly all texts begin with a letter: only the others need a check of each character.
            letters = one[:1].isalnum() and two[:1].isalnum() and one[0] not in FILLERS and two[0] not in FILLERS
            if not (letters or (is_text(one) and is_text(two))) or too_many_marks(one) or too_many_marks(two):
                wrong = [f"column {name}: {why}" for name, text in zip(names, (one, two), strict=False)
                         if (why := text_problem(text))]  # fmt: skip
                bad.append(BadRow(line, "blank-text", "; ".join(wrong), cells))
            elif several and rated[key].problems:
                finding = "unclear-label" if rated[key].unclear else "bad-label"
                bad.append(BadRow(line, finding, "; ".join(rated[key].problems), cells))
            elif not -LARGEST <= label <= LARGEST:  # also true for NaN
                column = self._label_column(low, high)
                finding = "unclear-label" if column.is_unclear(written) else "bad-label"
                bad.append(BadRow(line, finding, f"column {names[2]}: {column.problem(written)}", cells))
            elif not low <= label <= high:
                what = f"column {names[2]}: {written.strip()} is outside the label scale {low:g} to {high:g}"
                bad.append(BadRow(line, "bad-label", what, cells))
            elif weight is not None and (why := weight_problem(cells[weight])):
                bad.append(BadRow(line, "bad-weight", f"column {self.columns.weight_name}: {why}", cells))
            else:
                sentence1.append(one)
                sentence2.append(two)
                labels.append(label)
                lines.append(line)
                if several:
                    ratings.append(rated[key].numbers)
                if weight is not None:
                    weights.append(read_weight(cells[weight]))
                if not (one.isascii() and two.isascii()):
                    remarks += [Remark(line, "mojibake", text) for text in (one, two) if is_bad(text)][:1]
                if ("\n" in one or "\n" in two) and holds_rows(one + "\n" + two, self.table.delimiter, width):
                    remarks.append(Remark(line, "swallowed-rows", ""))
        of_each = np.array(ratings, np.float64).reshape(-1, len(several)) if several else None
        weight_of_each = None if weight is None else np.array(weights, np.float64)
        numbers = np.array(labels, np.float64), np.array(lines, np.int64)
        return PairChunk(sentence1, sentence2, *numbers, bad, remarks, of_each, weight_of_each)


def require_state(path: Path, files: Sequence[Path], state: tuple[int, ...]) -> None:
    """Raises `InputError` about `path` if the files that it consists of are no longer in the state of before."""
    if file_state(files) != state:
        raise InputError(f"{path} was changed while it was read: start again when it is complete")


def file_state(files: Sequence[Path]) -> tuple[int, ...]:
    """Returns what tells the files' content from another: size, times and inode. The last two can't be set as one likes."""
    state: list[int] = []
    for path in files:
        with readable(path):
            found = path.stat()
        state += [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    return tuple(state)


def _block(rows: Iterator[tuple[int, list[str]]], size: int) -> list[tuple[int, list[str]]]:
    """Returns the next rows: `size` rows or about CHARACTERS_AT_ONCE characters."""
    block: list[tuple[int, list[str]]] = []
    room = CHARACTERS_AT_ONCE
    while room > 0 and (piece := list(itertools.islice(rows, min(ROWS_A_LOOK, size - len(block))))):
        room -= sum([sum(map(len, cells)) for _, cells in piece])
        block += piece
    return block
